import Foundation
import PackagePlugin

/// Runs Debian's `protoc` with `protoc-gen-fleetpush` over every .proto file of a target: those in the target's own
/// `Protos` directory if it has one, else those in the package's.
///
/// One command makes all files, as they share namespaces and a list; it runs again when a .proto file or the generator
/// has changed. SwiftPM asks a plugin again only when the package's own directories change: after a .proto file was added
/// or removed, touch Package.swift.
@main
struct GenerateProtos: BuildToolPlugin {
  func createBuildCommands(context: PluginContext, target: any Target) throws -> [Command] {
    guard let target = target as? SwiftSourceModuleTarget else { return [] }
    let own = target.directoryURL.appending(path: "Protos")
    let isOwn = FileManager.default.fileExists(atPath: own.path)
    let root = isOwn ? own : context.package.directoryURL.appending(path: "Protos")
    let names = try protoFiles(under: root)
    let generator = try context.tool(named: "protoc-gen-fleetpush").url
    let output = context.pluginWorkDirectoryURL
    // Service stubs are for the product; a target with files of its own is about messages.
    let options = ["registry=\(target.name)Descriptors"] + (isOwn ? [] : ["stubs"])
    let outputs = names.map { output.appending(path: swiftName(of: $0)) } + [output.appending(path: "Registry.swift")]
    return [
      .buildCommand(
        displayName: "Generating Swift from \(names.count) .proto files for \(target.name)",
        executable: try protoc(),
        arguments: [
          "--plugin=protoc-gen-fleetpush=\(generator.path)", "--fleetpush_out=\(output.path)",
          "--fleetpush_opt=\(options.joined(separator: ","))", "--proto_path=\(root.path)",
        ] + names,
        inputFiles: names.map { root.appending(path: $0) } + [generator],
        outputFiles: outputs)
    ]
  }

  /// Paths relative to the root, sorted, so that the command is the same each time.
  private func protoFiles(under root: URL) throws -> [String] {
    guard let all = FileManager.default.enumerator(atPath: root.path) else {
      throw PluginFailure("no directory \(root.path)")
    }
    let names = all.compactMap { $0 as? String }.filter { $0.hasSuffix(".proto") }.sorted()
    guard !names.isEmpty else { throw PluginFailure("no .proto files under \(root.path)") }
    return names
  }

  /// As the generator names it: push/v1/push.proto → push.v1.push.swift.
  private func swiftName(of name: String) -> String {
    name.dropLast(".proto".count).replacing("/", with: ".") + ".swift"
  }

  private func protoc() throws -> URL {
    let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin"
    for directory in path.split(separator: ":") {
      let candidate = URL(filePath: String(directory)).appending(path: "protoc")
      if FileManager.default.isExecutableFile(atPath: candidate.path) { return candidate }
    }
    throw PluginFailure("protoc is not on PATH; on Debian: apt-get install protobuf-compiler")
  }
}

struct PluginFailure: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}
