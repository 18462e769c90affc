{
  lib,
  buildGoModule,
  installShellFiles,
  # Not in nixpkgs of before 23.05; then PATH is all that is looked at.
  passt ? null,
  stdenv,
  version ? "unstable",
}:
buildGoModule {
  pname = "nuc";
  inherit version;

  # test/nix/vendor-hash vendors the same files: what imports a module decides
  # what is vendored.
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../docs
      ../embed.go
      ../flake.lock
      ../go
      ../go.mod
      ../go.sum
      ./default.nix
      ./lib
      ./modules
      ./package.nix
      # The packages' tests import them.
      ../test/jail
      ../test/leaktest
    ];
  };
  vendorHash = "sha256-LqYPEelzuaY2OJ1zCs9wqDGMQmpJzXWO6c7rLw3AjhM=";

  subPackages = [ "go/cmd/nuc" ];
  env.CGO_ENABLED = 0;
  ldflags = [
    "-s"
    "-w"
    "-X main.version=${version}"
  ]
  ++ lib.optional (
    passt != null
  ) "-X github.com/nix-user-containers/nuc/go/internal/outbound.given=${passt}/bin";

  nativeBuildInputs = [ installShellFiles ];
  postInstall = lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    installShellCompletion --cmd nuc \
      --bash <($out/bin/nuc completion bash) \
      --zsh <($out/bin/nuc completion zsh) \
      --fish <($out/bin/nuc completion fish)
  '';

  meta = {
    description = "NixOS configurations as rootless containers";
    homepage = "https://github.com/nix-user-containers/nuc";
    mainProgram = "nuc";
    platforms = lib.platforms.linux;
  };
}
