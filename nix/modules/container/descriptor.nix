# From the options to the descriptor.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.nuc;
  inherit (config.system.build) toplevel;
  inherit (import ../../lib/descriptor.nix) mkDescriptorAt;
  handedOver = import ../../lib/sockets.nix config.systemd.sockets cfg.handOver;

  # Problems are told by the option to change.
  option = import ../../lib/option.nix {
    inherit credentials;
    inherit (cfg) ports;
    handedOver = handedOver.ports;
  };

  nonEmpty = name: value: lib.optionalAttrs (value != [ ] && value != { }) { ${name} = value; };
  # Submodules of old releases carry `_module`.
  plain = map (v: removeAttrs v [ "_module" ]);
  set = lib.filterAttrs (_: v: v != null);
  credentials = lib.attrNames cfg.credentials;
  credential =
    name:
    let
      value = cfg.credentials.${name};
    in
    {
      inherit name;
      inherit (value) command environment;
      # Not interpolated: that would copy a path to the store.
      file = if value.file == null then null else toString value.file;
    }
    // lib.optionalAttrs value.optional { optional = true; };
  resources = set (removeAttrs cfg.resources [ "optional" ]);
in
{
  nuc.descriptor = mkDescriptorAt option (
    {
      inherit (cfg) name;
      system = {
        init = "${toplevel}/init";
        toplevel = "${toplevel}";
        # The new generation's own program, as nixos-rebuild does.
        switch = [
          "${toplevel}/bin/switch-to-configuration"
          "switch"
        ];
        ttyGroup = config.ids.gids.tty;
        inherit (cfg) stop;
      }
      // nonEmpty "environment" cfg.environment;
      root = {
        inherit (cfg) tree ephemeral;
        sizeBytes = cfg.ephemeralSizeBytes;
      };
      mounts = [
        {
          source = "/nix/store";
          target = "/nix/store";
          readOnly = true;
        }
      ]
      ++ plain cfg.mounts;
      ids.count = cfg.ids.count;
      network = {
        inherit (cfg.network)
          allow
          idleStopSeconds
          mode
          mtu
          outbound
          ;
      }
      // lib.optionalAttrs cfg.network.hostLoopback { hostLoopback = true; }
      // nonEmpty "dns" cfg.network.dns
      // nonEmpty "hosts" cfg.network.hosts
      // nonEmpty "ports" (plain cfg.ports ++ map (port: removeAttrs port [ "unit" ]) handedOver.ports);
      ready = {
        inherit (cfg.ready) timeoutSeconds;
      }
      // nonEmpty "units" cfg.ready.units;
    }
    // nonEmpty "rootOwned" (lib.unique (map (p: "${p}") cfg.rootOwnedPackages))
    // nonEmpty "devices" cfg.devices
    // nonEmpty "credentials" (map credential credentials)
    // nonEmpty "links" (plain cfg.links)
    // nonEmpty "dependsOn" cfg.dependsOn
    // lib.optionalAttrs (cfg.restart != "no") { inherit (cfg) restart; }
    // lib.optionalAttrs (cfg.watchdogSeconds != 0) { inherit (cfg) watchdogSeconds; }
    // lib.optionalAttrs (cfg.security.seccomp != "default") { inherit (cfg) security; }
    // lib.optionalAttrs (resources != { }) {
      resources = resources // {
        inherit (cfg.resources) optional;
      };
    }
  );

  # Its closure holds the toplevel, and through it all that the container needs.
  system.build.nucDescriptor = pkgs.writeText "nuc-${cfg.name}.json" cfg.descriptor;
}
