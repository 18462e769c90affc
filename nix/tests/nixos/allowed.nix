# What looks like the above and is no reason to refuse.
{
  kernelModuleOfHost = {
    boot.kernelModules = [ "wireguard" ];
    nuc.host.kernelModules = [ "wireguard" ];
  };
  sysctlOfNetwork.boot.kernel.sysctl."net.ipv4.ip_forward" = 1;
  sysctlOfHost = {
    boot.kernel.sysctl."vm.max_map_count" = 262144;
    nuc.host.sysctls = [ "vm.max_map_count" ];
  };
  tmpfs.fileSystems."/scratch" = {
    device = "tmpfs";
    fsType = "tmpfs";
  };
  shortRange.nuc.ids.count = 4096;
}
