# What can't work in a user namespace is said when the configuration is
# evaluated, with what to do instead.
{
  config,
  lib,
  options,
  modulesPath,
  ...
}:
let
  cfg = config.nuc;
  list = lib.concatStringsSep ", ";
  require = what: found: remedy: {
    assertion = found == [ ];
    message = "nuc: ${what} in a container: ${list found}: ${remedy}";
  };

  # NixOS' own modules and sysctls are wishes that nothing fails without; those
  # of a configuration are meant.
  meant =
    option:
    lib.concatLists (
      lib.zipListsWith (
        file: value: lib.optional (!lib.hasPrefix (toString modulesPath) (toString file)) value
      ) option.files option.definitions
    );

  # The kernel loads these itself when a container first uses them.
  loadedOnUse = [
    "fuse"
    "nf_tables"
    "overlay"
    "tun"
    "veth"
  ];
  modules = lib.subtractLists (loadedOnUse ++ cfg.host.kernelModules) (
    lib.concatLists (meant options.boot.kernelModules)
  );

  # What belongs to the container's own network, ipc, uts and user namespace.
  isOwn =
    name:
    lib.any (prefix: lib.hasPrefix prefix name) [
      "fs.mqueue."
      "kernel.domainname"
      "kernel.hostname"
      "kernel.msg"
      "kernel.sem"
      "kernel.shm"
      "net."
      "user.max_"
    ];
  sysctls = lib.filter (name: !isOwn name && !lib.elem name cfg.host.sysctls) (
    lib.unique (lib.concatMap lib.attrNames (meant options.boot.kernel.sysctl))
  );

  mountable = [
    "cgroup2"
    "devpts"
    "mqueue"
    "overlay"
    "proc"
    "ramfs"
    "sysfs"
    "tmpfs"
  ];
  fileSystems = map (fs: fs.mountPoint) (
    lib.filter (
      fs:
      !(
        lib.elem fs.fsType mountable
        || lib.hasPrefix "fuse" fs.fsType
        || lib.any (o: lib.elem o fs.options) [
          "bind"
          "rbind"
        ]
      )
    ) (lib.attrValues config.fileSystems)
  );

  # DynamicUser takes ids from 61184 to 65519 (systemd.exec(5)).
  dynamic = lib.filter (
    name:
    let
      service = config.systemd.services.${name};
    in
    service.enable
    && lib.elem (service.serviceConfig.DynamicUser or false) [
      true
      "true"
      "yes"
      "1"
    ]
  ) (lib.attrNames config.systemd.services);
in
{
  assertions = [
    (require "boot.kernelModules can't be loaded" modules
      "load them on the host and name them in nuc.host.kernelModules, or remove them."
    )
    (require "boot.extraModulePackages can't be loaded"
      (map (p: (builtins.parseDrvName p.name).name) config.boot.extraModulePackages)
      "install them on the host."
    )
    (require "boot.kernel.sysctl can't be set" sysctls
      "set them on the host and name them in nuc.host.sysctls, or remove them."
    )
    (require "swap can't be used"
      (
        map (s: s.device) config.swapDevices
        ++ lib.optional (config.zramSwap.enable or false) "zramSwap.enable"
      )
      "it belongs to the host: remove swapDevices and zramSwap."
    )
    (require "fileSystems with a block device or of the network can't be mounted" fileSystems
      "mount them on the host and bring them in with nuc.mounts (hardware-configuration.nix has no place in a container)."
    )
    (require "DynamicUser can't have its ids, 61184 to 65519,"
      (lib.optionals (cfg.ids.count < 65520) dynamic)
      "raise nuc.ids.count from ${toString cfg.ids.count} to 65536, or set systemd.services.<name>.serviceConfig.DynamicUser to false."
    )
  ];
}
