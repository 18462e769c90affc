# Containers as systemd user services of home-manager.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.programs.nuc;
  # A word of a command line (systemd.service(5), "Command lines").
  word = text: ''"${
    builtins.replaceStrings
      [
        "\\"
        "\""
        "%"
        "$"
      ]
      [
        "\\\\"
        "\\\""
        "%%"
        "$$"
      ]
      "${text}"
  }"'';
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

    containers = lib.mkOption {
      default = { };
      example = lib.literalExpression "{ web.descriptor = inputs.project.nucContainers.x86_64-linux.web.descriptor; }";
      description = "Containers by name, each a user service nuc-NAME.";
      type = lib.types.attrsOf (
        lib.types.submodule {
          options = {
            descriptor = lib.mkOption {
              type = lib.types.path;
              description = "The descriptor: what `mkContainer` gives as `descriptor`, or a file.";
            };
            autoStart = lib.mkOption {
              type = lib.types.bool;
              default = true;
              description = "Start the container with the user's manager: at login, or at boot for a user who lingers.";
            };
          };
        }
      );
    };
  };

  config = lib.mkIf cfg.enable {
    home.packages = [ cfg.package ];

    systemd.user.services = lib.mapAttrs' (
      name: container:
      # nuc-link-… is a link's.
      lib.nameValuePair "nuc-${lib.optionalString (lib.hasPrefix "link-" name) "-"}${name}" {
        Unit.Description = "Container ${name}";
        Service = {
          ExecStart = "${word "${cfg.package}/bin/nuc"} start ${word container.descriptor}";
          # newuidmap and newgidmap, of NixOS and of other systems, and Nix, which
          # keeps the container's store paths.
          Environment = "PATH=/run/wrappers/bin:%h/.nix-profile/bin:/etc/profiles/per-user/%u/bin:/nix/var/nix/profiles/default/bin:/run/current-system/sw/bin:/usr/bin:/bin";
          # The container's init moves its processes in a cgroup of its own.
          Delegate = true;
          # The supervisor stops the container; killing its processes beside it
          # would lose data.
          KillMode = "mixed";
          TimeoutStopSec = 120;
          Restart = "on-failure";
          RestartSec = 1;
        };
        Install.WantedBy = lib.optional container.autoStart "default.target";
      }
    ) cfg.containers;
  };
}
