internal import FileStore
public import Reactor

/// Uploads files to Fleetpush: in chunks over several connections, going on where an earlier attempt stopped.
///
/// Belongs to its loop: a program that has none starts one, and runs the upload there.
///
///     let loop = try EventLoop.start(name: "uploads")
///     defer { loop.stop() }
///     let result = try await loop.run {
///       let client = UploadClient(loop: loop, uploaders: [HostPort(host: "10.0.0.7", port: 7100)])
///       defer { client.close() }
///       return try await client.upload("/srv/images/terminal.img") { progress in
///         print(progress.durable, "of", progress.total, progress.timeLeft as Any)
///       }
///     }
///     print(result.fileID, result.md5)
///
/// The file id follows from the machine, the real path, inode, size and times of the file, so uploading the same file again,
/// in this process or another, goes on, and a file that is there already is answered for at once. Chunks carry their MD5;
/// the whole file's is taken in the one pass over it. An uploader that breaks off is left for the next one. Memory is
/// bounded: see the limits in `UploadOptions`.
public final class UploadClient {
  private let loop: EventLoop
  private let addresses: [HostPort]
  private let options: UploadOptions
  private let small: SmallUploads
  private var running: [ObjectIdentifier: FileUpload] = [:]
  private var isStopped = false

  /// - Parameter uploaders: files are spread over them, and go to the next when one can't be reached; at least one.
  public init(loop: EventLoop, uploaders: [HostPort], options: UploadOptions = UploadOptions()) {
    self.loop = loop
    addresses = uploaders
    self.options = options
    small = SmallUploads(uploaders, options: options, loop: loop)
  }

  /// Closes what connections there are. Call it when no upload is under way.
  public func close() { small.close() }

  /// Ends uploads that are under way, and lets none begin: each throws `.stopped`. What is durable at the server stays, and
  /// the same call goes on from there.
  public func stop() {
    isStopped = true
    small.stop()
    for upload in running.values { upload.stop() }
  }

  /// Uploads one file.
  ///
  /// - Parameters:
  ///   - path: of a plain file.
  ///   - fileID: names the file at the server; nil for the id that follows from the file. With an id of your own the
  ///     content is compared by its MD5 whatever the server has.
  ///   - progress: called on the loop, at most every `progressInterval`.
  /// - Returns: when the file stands at the server, verified.
  /// - Throws: `UploadError`.
  public func upload(
    _ path: String, fileID: String? = nil, progress: @escaping (UploadProgress) -> Void = { _ in }
  ) async throws(UploadError) -> UploadResult {
    let source: SourceFile
    do {
      source = try await BlockingPool.shared.run { try SourceFile(path: path) }
    } catch {
      throw error as? UploadError ?? UploadError(.file, "\(error)")
    }
    return try await upload(source, fileID: fileID, progress: progress)
  }

  private func upload(
    _ source: SourceFile, fileID: String?, progress: @escaping (UploadProgress) -> Void
  ) async throws(UploadError) -> UploadResult {
    if isStopped { throw .stopped }
    do {
      let id = try fileID.map { try FileID($0) }
      if source.size <= UploadOptions.chunkBytes {
        return try await loop.cancellable {
          try await small.run(source, id: id, progress: progress)
        } onCancel: { [weak self] in
          self?.stop()
        }
      }
      let upload = try FileUpload(
        source, id: id, addresses: addresses, options: options, loop: loop, progress: progress)
      running[ObjectIdentifier(upload)] = upload
      defer { running[ObjectIdentifier(upload)] = nil }
      return try await loop.cancellable {
        try await upload.run()
      } onCancel: {
        upload.stop()
      }
    } catch let error as UploadError {
      throw error
    } catch let error as FileStoreError {
      throw UploadError(.refused, error.message)
    } catch is CancellationError {
      throw .stopped
    } catch {
      throw UploadError(.refused, "\(error)")
    }
  }

  /// Uploads files, and everything below folders: large files a few at a time, small ones many at a time.
  ///
  /// - Parameters:
  ///   - paths: of files and folders. Links below folders are left out.
  ///   - progress: of all of it together, called on the loop.
  ///   - ended: called on the loop with each file's end, in the order in which they end.
  /// - Returns: the ends, in the order of the paths, and by name below a folder; never throws, a file that failed says so.
  public func upload(
    all paths: [String], progress: @escaping (BatchProgress) -> Void = { _ in },
    ended: @escaping (UploadReport) -> Void = { _ in }
  ) async -> [UploadReport] {
    let tree = await BlockingPool.shared.run { FileTree(paths) }
    let batch = Batch(tree, interval: options.progressInterval, loop: loop, progress: progress, ended: ended)
    await batch.run(large: options.concurrency, small: options.smallFilesAtOnce) {
      [self] (entry, progress) async throws(UploadError) in
      try await upload(entry.path, progress: progress)
    }
    return batch.reports
  }
}
