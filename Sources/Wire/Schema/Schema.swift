// The module's types are generated from Protos/ when it is built (see Sources/Wire/GenerateProtos): one enum without
// cases for each package (`PushV1`, `FileTransferV1`, `BroadcastV1`, `GRPCHealthV1`, …) with the package's messages,
// enums and service stubs inside, and `SchemaDescriptors` with what reflection shows.
