internal import Glibc

/// The plain files that paths stand for: files themselves, and everything below folders. Blocks.
///
/// A link that was named is followed; links, sockets and devices found below a folder are left out.
struct FileTree: Sendable {
  struct Entry: Sendable, Hashable {
    var path: String
    var size: Int64
  }

  private(set) var files: [Entry] = []
  private(set) var failures: [UploadReport] = []
  /// Names below folders that are neither plain files nor folders.
  private(set) var leftOut = 0

  /// - Parameter paths: in this order; below a folder, by name.
  init(_ paths: [String]) {
    for path in paths {
      var status = Glibc.stat()
      guard stat(path, &status) == 0 else {
        fail(path)
        continue
      }
      if status.st_mode & S_IFMT == S_IFDIR { walk(path) } else { take(path, status) }
    }
  }

  private mutating func take(_ path: String, _ status: stat) {
    guard status.st_mode & S_IFMT == S_IFREG else {
      failures.append(.init(path: path, size: 0, result: .failure(.init(.file, "\(path) is not a plain file"))))
      return
    }
    files.append(Entry(path: path, size: Int64(status.st_size)))
  }

  private mutating func walk(_ folder: String) {
    guard let directory = opendir(folder) else { return fail(folder) }
    defer { closedir(directory) }
    var names: [String] = []
    while let entry = readdir(directory) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != ".", name != ".." { names.append(name) }
    }
    for name in names.sorted() {
      let path = folder.hasSuffix("/") ? folder + name : "\(folder)/\(name)"
      var status = Glibc.stat()
      guard lstat(path, &status) == 0 else {
        fail(path)
        continue
      }
      switch status.st_mode & S_IFMT {
      case S_IFDIR: walk(path)
      case S_IFREG: take(path, status)
      default: leftOut += 1
      }
    }
  }

  private mutating func fail(_ path: String) {
    let error = UploadError(.file, "\(path): \(String(cString: strerror(errno)))")
    failures.append(.init(path: path, size: 0, result: .failure(error)))
  }
}
