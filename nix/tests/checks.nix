# What `nix flake check` runs.
{
  lib,
  deadnix,
  git,
  nixfmt,
  nuc,
  path,
  runCommand,
  src,
  statix,
  stdenv,
  testers,
  writeText,
}:
let
  inherit (stdenv.hostPlatform) system;

  # Fails with what differs; evaluating the tests is the work.
  evaluation =
    name: tests:
    let
      failures = import ./failures.nix tests;
    in
    runCommand "nuc-${name}" { } (
      if failures == { } then
        "touch $out"
      else
        ''
          cat ${writeText "nuc-${name}-failures" (builtins.toJSON failures)}
          exit 1
        ''
    );
  lint =
    name: tool: command:
    runCommand "nuc-${name}" { nativeBuildInputs = [ tool ]; } ''
      cd ${src}
      ${command}
      touch $out
    '';
in
{
  # The package's own check is its command's; this runs all packages' tests.
  # Tests that need subordinate ids, or programs with more rights, leave themselves
  # out in the sandbox. Named here are those for which it isn't enough of a system:
  # it has no sysfs, mounts nothing but its own, and its root is nobody.
  go = nuc.overrideAttrs (old: {
    pname = "nuc-go-tests";
    nativeBuildInputs = old.nativeBuildInputs ++ [ git ];
    checkPhase = ''
      runHook preCheck
      go test -skip '^Test(Build|GetSubIDs.*|Inside|MakeRefused)$' ./go/... ./test/leaktest/...
      runHook postCheck
    '';
    doCheck = true;
  });

  functions = evaluation "functions" (import ./unit.nix);
  agreement =
    let
      differences = import ./agreement.nix;
    in
    evaluation "agreement" {
      agreement = if differences == [ ] then null else differences;
    };
  modules = evaluation "modules" (
    import ./modules.nix {
      nixpkgs = path;
      inherit system;
    }
  );
  release = evaluation "release" (import ./release.nix { inherit lib; });
  hosts = evaluation "hosts" (import ./hosts.nix { inherit lib; });

  options =
    runCommand "nuc-options"
      {
        # The real lib: it words the types as nix/docs/lib.nix does, or that is wrong.
        options = import ../docs/options.nix { inherit lib; };
        passAsFile = [ "options" ];
      }
      ''
        diff -u ${../../docs/options.md} $optionsPath
        touch $out
      '';

  formatting = lint "formatting" nixfmt "find . -name '*.nix' -exec nixfmt --check {} +";
  statix = lint "statix" statix "statix check .";
  deadnix = lint "deadnix" deadnix "deadnix --fail .";

  vm = testers.runNixOSTest (import ./vm.nix { inherit nuc; });
}
