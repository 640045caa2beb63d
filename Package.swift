// swift-tools-version: 6.1
import PackageDescription

// Every target is compiled with the same settings; warnings are errors in CI (`ops/test` passes the flag).
let settings: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
]

func library(_ name: String, in layer: String, uses: [String] = [], plugins: [String] = []) -> Target {
  .target(
    name: name, dependencies: uses.map { .byName(name: $0) }, path: "Sources/\(layer)/\(name)",
    swiftSettings: settings, plugins: plugins.map { .plugin(name: $0) })
}

func program(_ name: String, uses: [String], in layer: String = "Executables", exports: [String] = []) -> Target {
  .executableTarget(
    name: name, dependencies: uses.map { .byName(name: $0) }, path: "Sources/\(layer)/\(name)",
    swiftSettings: settings,
    linkerSettings: exports.isEmpty
      ? [] : [.unsafeFlags(exports.flatMap { ["-Xlinker", "--export-dynamic-symbol=\($0)"] })])
}

func tests(of name: String, uses: [String] = [], apart: [String] = [], plugins: [String] = []) -> Target {
  .testTarget(
    name: "\(name)Tests", dependencies: ([name] + uses).map { .byName(name: $0) }, path: "Tests/\(name)Tests",
    exclude: apart, swiftSettings: settings, plugins: plugins.map { .plugin(name: $0) })
}

func system(_ name: String, debian: String) -> Target {
  .systemLibrary(name: name, path: "Sources/System/\(name)", providers: [.apt([debian])])
}

let package = Package(
  name: "fleetpush",
  products: [
    // What other programs build on; executables are products by themselves.
    .library(name: "UploadClient", targets: ["UploadClient"])
  ],
  targets: [
    // System: one module per C library, imported by its single owner.
    system("CLinux", debian: "libc6-dev"),
    system("CNghttp2", debian: "libnghttp2-dev"),
    system("COpenSSL", debian: "libssl-dev"),
    system("CHiredis", debian: "libhiredis-dev"),
    system("CRdKafka", debian: "librdkafka-dev"),
    system("CMicrohttpd", debian: "libmicrohttpd-dev"),
    // Ours, in C for its vectors; slow without optimisation also where nothing else needs any.
    .target(name: "CMD5", path: "Sources/System/CMD5", cSettings: [.unsafeFlags(["-O2"])]),

    // Ground: bytes, the loop, telemetry, settings.
    library("Bytes", in: "Ground"),
    library("Reactor", in: "Ground", uses: ["Bytes", "CLinux"]),
    library("Telemetry", in: "Ground"),
    library("Settings", in: "Ground", uses: ["Reactor"]),
    library("Safeguards", in: "Ground"),

    // Wire: the protobuf codec and what `protoc` makes of Protos/.
    library("Protobuf", in: "Wire", uses: ["Bytes"]),
    program("protoc-gen-fleetpush", uses: ["Protobuf", "Bytes"], in: "Wire"),
    .plugin(
      name: "GenerateProtos", capability: .buildTool(), dependencies: ["protoc-gen-fleetpush"],
      path: "Sources/Wire/GenerateProtos"),
    library("Schema", in: "Wire", uses: ["Protobuf", "GRPC", "Bytes"], plugins: ["GenerateProtos"]),

    // Transport: HTTP/2, gRPC, the admin port.
    library("HTTP2", in: "Transport", uses: ["Reactor", "Bytes", "CNghttp2"]),
    library("GRPC", in: "Transport", uses: ["HTTP2", "Reactor", "Protobuf", "Bytes", "Telemetry"]),
    library("StandardServices", in: "Transport", uses: ["GRPC", "Schema", "Protobuf", "Reactor", "Bytes"]),
    library("Admin", in: "Transport", uses: ["Telemetry", "CMicrohttpd"]),

    // Stores: clients of Redis and Kafka.
    library("Redis", in: "Stores", uses: ["Reactor", "Bytes", "CHiredis", "COpenSSL"]),
    library("Kafka", in: "Stores", uses: ["Reactor", "Bytes", "CRdKafka"]),

    // Domain: state machines and records.
    library(
      "Routing", in: "Domain",
      uses: ["Redis", "Kafka", "Reactor", "Schema", "Protobuf", "Bytes", "Telemetry", "Safeguards"]),
    library(
      "FileStore", in: "Domain",
      uses: ["Schema", "Protobuf", "Reactor", "Bytes", "COpenSSL", "CMD5", "Safeguards"]),

    // Services.
    library(
      "GatewayService", in: "Services",
      uses: [
        "StandardServices", "Routing", "FileStore", "Redis", "Kafka", "GRPC", "Schema", "Protobuf", "Reactor", "Bytes",
        "Telemetry", "Safeguards",
      ]),
    library(
      "UploaderService", in: "Services",
      uses: [
        "StandardServices", "Routing", "FileStore", "Redis", "Kafka", "GRPC", "Schema", "Protobuf", "Reactor", "Bytes",
        "Telemetry", "Safeguards",
      ]),
    library(
      "AgentService", in: "Services",
      uses: ["FileStore", "GRPC", "HTTP2", "Schema", "Protobuf", "Reactor", "Bytes", "Telemetry", "Safeguards"]),
    library(
      "UploadClient", in: "Services", uses: ["FileStore", "GRPC", "HTTP2", "Schema", "Protobuf", "Reactor", "Bytes"]),
    library(
      "PushControl", in: "Services",
      uses: ["UploadClient", "GRPC", "Schema", "Protobuf", "Reactor", "Bytes", "Telemetry"]),

    // Executables: @main, wiring, flags.
    program(
      "gateway",
      uses: [
        "GatewayService", "Routing", "FileStore", "GRPC", "Admin", "Redis", "Kafka", "Reactor", "Settings", "Telemetry",
        "Safeguards",
      ]),
    program(
      "uploader",
      uses: [
        "UploaderService", "Routing", "FileStore", "GRPC", "Admin", "Redis", "Kafka", "Reactor", "Settings",
        "Telemetry",
      ]),
    program("agent", uses: ["AgentService", "GRPC", "Reactor", "Settings", "Telemetry", "Safeguards"]),
    program("pushctl", uses: ["PushControl", "UploadClient", "GRPC", "Reactor", "Settings", "Telemetry"]),
    // Its `bind` stands before the C library's: see BindSteering.
    program("devbroker", uses: ["Kafka", "Settings"], exports: ["bind"]),
    program(
      "bench",
      uses: [
        "AgentService", "GRPC", "HTTP2", "Kafka", "Schema", "Protobuf", "Reactor", "Bytes", "Settings",
        "Telemetry", "Safeguards",
      ]),

    // What tests of several targets share: servers as processes.
    .target(
      name: "TestSupport", dependencies: [], path: "Tests/TestSupport", swiftSettings: settings),
    tests(of: "Bytes"),
    tests(of: "Reactor", uses: ["Bytes"]),
    tests(of: "Telemetry"),
    tests(of: "Settings", uses: ["Reactor"]),
    tests(of: "Safeguards"),
    tests(of: "Protobuf", uses: ["Bytes"], apart: ["Protos", "reference.py"], plugins: ["GenerateProtos"]),
    tests(of: "Schema", uses: ["GRPC", "Protobuf", "Bytes"]),
    tests(of: "HTTP2", uses: ["Reactor", "Bytes"]),
    tests(of: "GRPC", uses: ["HTTP2", "Reactor", "Schema", "Protobuf", "Bytes", "Telemetry"]),
    tests(of: "StandardServices", uses: ["GRPC", "Schema", "Protobuf", "Reactor", "Bytes"]),
    tests(of: "Admin", uses: ["Telemetry"]),
    tests(of: "Redis", uses: ["TestSupport", "Reactor", "Bytes", "Telemetry"]),
    tests(of: "Kafka", uses: ["TestSupport", "Reactor", "Bytes", "Telemetry"]),
    tests(of: "Routing", uses: ["TestSupport", "Redis", "Kafka", "Reactor", "Schema", "Protobuf", "Bytes"]),
    tests(of: "FileStore", uses: ["Schema", "Protobuf", "Reactor", "Bytes"]),
    tests(
      of: "GatewayService",
      uses: [
        "TestSupport", "Routing", "FileStore", "Redis", "Kafka", "GRPC", "Schema", "Protobuf", "Reactor", "Bytes",
        "Telemetry", "Safeguards",
      ]),
    tests(
      of: "UploaderService",
      uses: [
        "TestSupport", "Routing", "FileStore", "Redis", "Kafka", "GRPC", "Schema", "Protobuf", "Reactor", "Bytes",
        "Telemetry",
      ]),
    tests(
      of: "AgentService",
      uses: ["FileStore", "GRPC", "Schema", "Protobuf", "Reactor", "Bytes", "Telemetry", "Safeguards"]),
    tests(
      of: "UploadClient",
      uses: [
        "TestSupport", "UploaderService", "FileStore", "Redis", "GRPC", "Schema", "Protobuf", "Reactor", "Bytes",
        "Telemetry",
      ]),
    tests(
      of: "PushControl",
      uses: ["UploadClient", "FileStore", "GRPC", "Schema", "Protobuf", "Reactor", "Bytes", "Telemetry"]),
  ]
)

// Fuzzing is built by `ops/fuzz` only: it wants instrumentation and libFuzzer.
if Context.environment["FLEETPUSH_FUZZ"] != nil {
  package.targets.append(
    .executableTarget(
      name: "fuzz",
      dependencies: ["GRPC", "HTTP2", "Schema", "Protobuf", "Redis", "Settings", "Reactor", "Bytes"],
      path: "Tests/Fuzz", exclude: ["Corpus"], swiftSettings: settings))
}
