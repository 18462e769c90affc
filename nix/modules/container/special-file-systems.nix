# The launcher mounts /proc, /sys, /dev and /run, and the store read-only; a
# remount of them gets EPERM and would end the boot.
{ lib, options, ... }:
let
  known = import ./known.nix { inherit lib options; };
  mounted = [
    "/dev"
    "/dev/pts"
    "/dev/shm"
    "/proc"
    "/run"
  ];
in
{
  # Activation remounts them, one after the other, where there is no
  # isNspawnContainer yet. A definition can't take back what another one names,
  # and what newer releases declare has an `apply` of its own.
  options = lib.optionalAttrs (lib.versionOlder (lib.trivial.release or "18.03") "23.11") {
    boot.specialFileSystems = lib.mkOption {
      apply = lib.filterAttrs (_: fs: !lib.elem fs.mountPoint mounted);
    };
  };

  config = lib.mkMerge [
    { boot.isContainer = true; }
    # Since 26.05 it drops all special mounts but /run/keys.
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
