# The option reference as nixpkgs makes it, with declarations and types of the
# real lib.
{
  lib,
  nixosOptionsDoc,
  runCommand,
}:
let
  # By path in the repository, not in the store.
  shown = file: lib.removePrefix "${toString ../..}/" (toString file);
  evaluated = lib.evalModules { modules = [ ../modules/container/options.nix ]; };
  options = nixosOptionsDoc {
    options = removeAttrs evaluated.options [ "_module" ];
    transformOptions =
      option:
      option
      // {
        declarations = map shown option.declarations;
      };
  };
in
runCommand "nuc-docs" { } ''
  mkdir -p $out
  cp ${../../docs}/*.md $out/
  cp ${options.optionsCommonMark} $out/container-options.md
''
