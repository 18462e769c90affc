# A NixOS host on which named users may run containers with all that nuc offers:
# a full range of ids, cgroup controllers for limits, and containers that go on
# when they log out.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.programs.nuc;
in
{
  options.programs.nuc = {
    enable = lib.mkEnableOption "nuc, rootless containers of NixOS configurations";

    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ../../package.nix { };
      defaultText = lib.literalExpression "nuc of this flake";
      description = "The nuc package.";
    };

    users = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "ana" ];
      description = "Users who run containers: each gets 65536 subordinate ids, unless ranges are declared for it, and services that outlive its sessions.";
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];

    users.users = lib.genAttrs cfg.users (user: {
      autoSubUidGidRange = lib.mkDefault (config.users.users.${user}.subUidRanges == [ ]);
      linger = lib.mkDefault true;
    });

    # systemd hands only memory and pids to user managers by itself.
    systemd.services."user@".serviceConfig.Delegate = lib.mkDefault "cpu cpuset io memory pids";
  };
}
