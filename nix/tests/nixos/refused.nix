# What nuc's modules refuse: a module, and a part of what is said to it.
{
  kernelModule = {
    module.boot.kernelModules = [ "wireguard" ];
    says = "boot.kernelModules can't be loaded in a container: wireguard";
  };
  modulePackage = {
    module =
      { pkgs, ... }:
      {
        boot.extraModulePackages = [ pkgs.hello ];
      };
    says = "boot.extraModulePackages can't be loaded in a container: hello";
  };
  sysctl = {
    module.boot.kernel.sysctl."vm.max_map_count" = 262144;
    says = "boot.kernel.sysctl can't be set in a container: vm.max_map_count";
  };
  swap = {
    module.swapDevices = [ { device = "/dev/sdb1"; } ];
    says = "swapDevices can't be used in a container: /dev/sdb1";
  };
  zram = {
    module.zramSwap.enable = true;
    says = "zramSwap.enable can't be used";
  };
  blockDevice = {
    module.fileSystems."/data" = {
      device = "/dev/sdb2";
      fsType = "ext4";
    };
    says = "can't be mounted in a container: /data";
  };
  dynamicUser = {
    module = {
      imports = [ ./hardened.nix ];
      nuc.ids.count = 4096;
    };
    says = "nuc.ids.count is 4096: hardened";
  };
  unmappedId = {
    module = {
      nuc.ids.count = 1000;
      users.users.ana = {
        isNormalUser = true;
        uid = 5000;
      };
    };
    says = "users.users.ana.uid = 5000";
  };
}
