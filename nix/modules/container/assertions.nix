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
  # A list, or a set of booleans by name since 25.11; what is not in the end was
  # switched off again.
  namesOf = value: if lib.isList value then value else lib.attrNames value;
  loaded =
    let
      all = config.boot.kernelModules;
    in
    if lib.isList all then all else lib.attrNames (lib.filterAttrs (_: on: on) all);
  modules = lib.subtractLists (loadedOnUse ++ cfg.host.kernelModules) (
    lib.intersectLists loaded (lib.concatMap namesOf (meant options.boot.kernelModules))
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
  # null leaves a sysctl as it is.
  isSet = name: config.boot.kernel.sysctl.${name} or null != null;
  sysctls = lib.filter (name: isSet name && !isOwn name && !lib.elem name cfg.host.sysctls) (
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

  stored = lib.filter (
    name: lib.hasPrefix "${builtins.storeDir}/" (toString cfg.credentials.${name}.file)
  ) (lib.attrNames cfg.credentials);
in
{
  assertions = [
    {
      assertion = stored == [ ];
      message = "nuc: nuc.credentials.<name>.file is in the Nix store, where everyone can read it: ${list stored}: name a file outside, in quotes, or use command or environment.";
    }
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
    (require "swapDevices can't be used" (map (s: s.device) config.swapDevices)
      "swap belongs to the host: remove them."
    )
    {
      assertion = !(config.zramSwap.enable or false);
      message = "nuc: zramSwap.enable can't be used in a container: swap belongs to the host: remove it.";
    }
    (require "fileSystems with a block device or of the network can't be mounted" fileSystems
      "mount them on the host and bring them in with nuc.mounts (hardware-configuration.nix has no place in a container)."
    )
    {
      assertion = dynamic == [ ] || cfg.ids.count >= 65520;
      message = "nuc: DynamicUser needs the ids from 61184 to 65519, but nuc.ids.count is ${toString cfg.ids.count}: ${list dynamic}: raise nuc.ids.count to 65536, or set systemd.services.<name>.serviceConfig.DynamicUser to false.";
    }
  ];
}
