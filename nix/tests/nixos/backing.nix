# What a container needs whose packages are links into a Debian tree.
{
  # The tree's store path.
  debian,
  pkgs,
}:
rec {
  # The tree is /usr, and Debian's files go through the links to it.
  mounts = [
    {
      source = "${builtins.storePath debian}/usr";
      target = "/usr";
      readOnly = true;
    }
  ];
  root = "${pkgs.runCommand "root" { } ''
    mkdir $out
    for folder in bin lib lib64 sbin; do ln -s usr/$folder $out/$folder; done
  ''}";
  module =
    { lib, ... }:
    {
      imports = [ ../debian-backing.nix ];
      nuc = {
        inherit mounts;
        tree = root;
        # By the package set's version, sudo would want to be root's; by
        # Debian's, not.
        rootOwnedPackages = lib.mkForce [ ];
      };
    };
}
