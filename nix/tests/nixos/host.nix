# A host where ana and ben run containers. Its hardware is nobody's.
{
  lib,
  options,
  pkgs,
  ...
}:
let
  # Releases before 22.11 have neither; what they'd do is not looked at here.
  old = lib.versionOlder (lib.trivial.release or "18.03") "22.11";
  missing = {
    options = {
      autoSubUidGidRange = lib.mkOption { default = false; };
      linger = lib.mkOption { default = false; };
    };
  };
in
{
  options = lib.optionalAttrs old {
    users.users = lib.mkOption { type = lib.types.loaOf (lib.types.submodule missing); };
  };

  config = {
    boot.isContainer = true;
    programs.nuc = {
      enable = true;
      # The old release has no buildGoModule.
      package = pkgs.runCommand "nuc" { } "mkdir -p $out/bin";
      users = [
        "ana"
        "ben"
      ];
    };
    users.users.ana.isNormalUser = true;
    users.users.ben = {
      isNormalUser = true;
      subUidRanges = [
        {
          startUid = 500000;
          count = 65536;
        }
      ];
    };
  };
}
