import PackagePlugin

@main
struct GenerateProtos: BuildToolPlugin {
  func createBuildCommands(context: PluginContext, target: any Target) throws -> [Command] { [] }
}
