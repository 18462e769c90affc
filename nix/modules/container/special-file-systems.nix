# The launcher mounts /proc, /sys, /dev and /run, and the store read-only; a
# remount of them gets EPERM and would end the boot.
{ lib, options, ... }:
let
  known = import ./known.nix { inherit lib options; };
in
{
  config = lib.mkMerge [
    { boot.isContainer = true; }
    # Since 26.05 it drops all special mounts but /run/keys. Before, activation
    # remounts them: that works where they are mounts of this user namespace.
    (known "boot.isNspawnContainer" true)
    # The remount of the store by stage 2, as 25.11, 22.11 and older name it.
    (
      if options.boot ? nixStoreMountOpts then
        { boot.nixStoreMountOpts = lib.mkForce [ ]; }
      else if options.boot ? readOnlyNixStore then
        { boot.readOnlyNixStore = lib.mkForce false; }
      else
        known "nix.readOnlyStore" (lib.mkForce false)
    )
    # erofs can't be mounted in a user namespace.
    (known "system.etc.overlay.enable" (lib.mkDefault false))
    (known "system.nixos-init.enable" (lib.mkDefault false))
  ];
}
