internal import GRPC
internal import Reactor
internal import UploadClient

extension Control {
  /// Rows of a table; of more files only those that failed are listed.
  static let maximumRows = 50

  /// Uploads files, and everything below folders.
  ///
  /// - Parameter fileID: for a single file; nil for the id that follows from each.
  /// - Returns: 0 when every file stands at the server, 130 when it was interrupted, else 1.
  public func upload(_ paths: [String], fileID: String?) async -> Int32 {
    await command {
      if let fileID {
        let result = try await self.uploadFile(paths[0], fileID: fileID)
        try self.printResult(UploadedFile(paths[0], result), people: Self.sentence(result))
        return true
      }
      let began = self.loop.now
      let reports = try await self.withUploads { client in
        let bars = ProgressBars(self.terminal)
        return await client.upload(all: paths, progress: { bars.show(Self.bars($0)) })
      }
      for report in reports {
        if case .failure(let error) = report.result { self.complain(error) }
      }
      try self.printResults(reports, milliseconds: (self.loop.now - began) / 1_000_000)
      return reports.allSatisfy { if case .success = $0.result { true } else { false } }
    }
  }

  func uploadFile(_ path: String, fileID: String?) async throws -> UploadResult {
    try await withUploads { client in
      let bars = ProgressBars(self.terminal)
      return try await client.upload(path, fileID: fileID) { bars.show([Self.bar(path, $0)]) }
    }
  }

  private func withUploads<T>(_ body: (UploadClient) async throws -> T) async throws -> T {
    let client = UploadClient(loop: loop, uploaders: options.uploaders, options: options.uploads)
    uploading = client
    defer {
      uploading = nil
      client.close()
    }
    return try await body(client)
  }

  // MARK: What is shown

  /// All of it, and each large file under way where there is more than one.
  private static func bars(_ progress: BatchProgress) -> [ProgressBars.Bar] {
    if progress.files == progress.filesFailed { return [] }
    let current = progress.current.sorted { $0.key < $1.key }.prefix(ProgressBars.maximumBars - 1)
    if progress.files == 1, let only = current.first { return [bar(only.key, only.value)] }
    let fraction = progress.total == 0 ? 1 : Double(progress.sent) / Double(progress.total)
    let failed = progress.filesFailed == 0 ? "" : ", \(progress.filesFailed) failed"
    let all = ProgressBars.Bar(
      label: "\(progress.filesEnded) of \(progress.files) files", fraction: fraction,
      note: pace(progress.sent, progress.total, progress.bytesPerSecond, progress.timeLeft) + failed)
    return [all] + current.map { bar($0.key, $0.value) }
  }

  private static func bar(_ path: String, _ progress: UploadProgress) -> ProgressBars.Bar {
    let name = path.split(separator: "/").last.map(String.init) ?? path
    let isVerifying = progress.phase == .verifying
    let done = isVerifying ? progress.verified : progress.sent
    return .init(
      label: name, fraction: progress.total == 0 ? 1 : Double(done) / Double(progress.total),
      note: isVerifying
        ? "verifying" : pace(progress.sent, progress.total, progress.bytesPerSecond, progress.timeLeft))
  }

  private static func pace(_ done: Int64, _ total: Int64, _ rate: Double, _ left: Duration?) -> String {
    let left = left.map { ", \(readableSeconds($0.wholeMilliseconds)) left" } ?? ""
    return "\(readableSize(done)) of \(readableSize(total)), \(readableSize(Int64(rate)))/s\(done < total ? left : "")"
  }

  static func sentence(_ result: UploadResult) -> String {
    let before = result.bytesKnown == 0 ? "" : ", \(readableSize(result.bytesKnown)) of it before"
    return
      "\(printable(result.name)): file id \(result.fileID), \(readableSize(result.size))\(before), MD5 \(result.md5), "
      + readableSeconds(result.duration.wholeMilliseconds)
  }

  /// One file is an object or a sentence, several are an array or a table with their sums; a single failure was told.
  private func printResults(_ reports: [UploadReport], milliseconds: Int64) throws {
    if reports.count == 1 {
      guard case .success(let result) = reports[0].result else { return }
      return try printResult(UploadedFile(reports[0]), people: Self.sentence(result))
    }
    try printResult(reports.map { UploadedFile($0) }, people: Self.table(reports, milliseconds))
  }

  private static func table(_ reports: [UploadReport], _ milliseconds: Int64) -> String {
    var rows: [[String]] = []
    var (bytes, failed): (Int64, Int) = (0, 0)
    for report in reports {
      switch report.result {
      case .success(let result):
        bytes += result.size
        guard reports.count <= maximumRows else { continue }
        rows.append([
          report.path, result.fileID, readableSize(result.size), readableSeconds(result.duration.wholeMilliseconds),
          result.md5,
        ])
      case .failure(let error):
        failed += 1
        rows.append([report.path, "", readableSize(report.size), "", error.message])
      }
    }
    let rate = readableSize(Int64(Double(bytes) * 1000 / Double(max(1, milliseconds))))
    let sums =
      "\(reports.count - failed) of \(reports.count) files, \(readableSize(bytes)) in "
      + "\(readableSeconds(milliseconds)) (\(rate)/s), \(failed) failed"
    return (rows.isEmpty ? "" : columns(["FILE", "FILE ID", "SIZE", "TIME", "MD5"], rows) + "\n") + sums
  }
}
