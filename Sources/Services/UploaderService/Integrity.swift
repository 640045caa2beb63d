internal import FileStore
internal import GRPC
internal import Reactor
internal import Telemetry
internal import Schema

extension UploadNode {
  /// Reads the finished file and compares its MD5 with its record's and with the client's: the one given now, or else the
  /// one declared with the upload.
  func checkIntegrity(
    of id: FileID, against claimed: String?
  ) async throws -> FileTransferV1.FileIntegrityStatus {
    let record = try await records.load(id)
    if let record, !record.isDone {
      let message = "The upload is not finished: \(record.durableBytes) of \(record.size) bytes are there."
      return FileTransferV1.FileIntegrityStatus(
        match: false, clientMD5: claimed ?? record.declaredMD5 ?? "", message: message)
    }
    let (recorded, actual): (String, String)
    do {
      (recorded, actual) = try await digestPool.run { [store] in
        let (file, sidecar) = try store.open(id)
        let digest = PrefixDigest()
        try digest.advance(in: file, to: sidecar.size)
        return (sidecar.md5, digest.hex())
      }
    } catch let error as FileStoreError where error.code == .notFound {
      throw Status(.notFound, "There is no file with this id.")
    }
    var status = FileTransferV1.FileIntegrityStatus(
      match: false, serverMD5: actual, clientMD5: claimed ?? record?.declaredMD5 ?? "")
    if actual != recorded {
      status.message = "The file is damaged here: its MD5 was \(recorded) when it was finished, and is \(actual) now."
    } else if status.clientMD5.isEmpty {
      status.message = "The file is as it was when it was finished; no MD5 of the client's is known to compare with."
    } else if status.clientMD5 == actual {
      status.match = true
      status.message = "The MD5s are the same."
    } else {
      status.message = "The MD5s differ."
    }
    return status
  }
}
