# Nix in the container is a client of the host's daemon: a daemon of its own
# would need the store writable. The daemon sees the user who started the
# container, or one of its subordinate ids.
{
  config,
  lib,
  options,
  ...
}:
let
  cfg = config.nuc.nix;
  known = import ./known.nix { inherit lib options; };
  # The builders are the host's. Stronger than nix.nix's own mkDefault.
  noBuilders.nix.nrBuildUsers = lib.mkOverride 900 0;
  folder = "/nix/var/nix/daemon-socket";
in
{
  config = lib.mkMerge [
    (known "nix.enable" (lib.mkDefault cfg.enable))
    (lib.mkIf cfg.enable {
      nuc.mounts = [
        {
          source = folder;
          target = folder;
        }
      ];
      environment.variables.NIX_REMOTE = "daemon";
      systemd.sockets.nix-daemon.enable = false;
      systemd.services.nix-daemon.enable = false;
    })
    noBuilders
    # Releases without nix.enable start the daemon always.
    (lib.optionalAttrs (!(options.nix ? enable)) (
      lib.mkIf (!cfg.enable) {
        systemd.sockets.nix-daemon.enable = lib.mkDefault false;
        systemd.services.nix-daemon.enable = lib.mkDefault false;
      }
    ))
  ];
}
