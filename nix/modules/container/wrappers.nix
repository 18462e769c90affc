# Each setuid program is copied, and its owner and mode are set, by four processes
# at every boot. Those are left out that could do nothing for anyone here.
{
  config,
  lib,
  options,
  ...
}:
let
  inherit (config.nuc) devices ids;
  fuse = lib.elem "/dev/fuse" devices;

  # They mount for others than root what fstab says they may, and unmount it.
  mayMount =
    fs:
    lib.any (o: lib.elem o fs.options) [
      "group"
      "owner"
      "user"
      "users"
    ];
  mount = fuse || lib.any mayMount (lib.attrValues config.fileSystems);

  # They map ids of /etc/subuid and /etc/subgid, as far as the container has them.
  # NixOS gives out ranges from 100000 on.
  mapped =
    user:
    (user.autoSubUidGidRange or false && ids.count > 100000)
    || lib.any (range: range.startUid < ids.count) user.subUidRanges
    || lib.any (range: range.startGid < ids.count) user.subGidRanges;
  nested = lib.any mapped (lib.attrValues config.users.users);

  idle =
    lib.optionals (!mount) [
      "mount"
      "umount"
    ]
    ++ lib.optionals (!nested) [
      "newgidmap"
      "newuidmap"
    ];
  # programs.fuse.enable has them, where there is one.
  idleBefore =
    idle
    ++ lib.optionals (!fuse) [
      "fusermount"
      "fusermount3"
    ];
in
{
  # Older releases have no switch for a program, and a definition can't take back
  # what another one names.
  options = lib.optionalAttrs (lib.versionOlder (lib.trivial.release or "18.03") "23.11") {
    security.wrappers = lib.mkOption { apply = wrappers: removeAttrs wrappers idleBefore; };
  };

  config = lib.optionalAttrs (options.security.wrappers.type.getSubOptions [ ] ? enable) {
    security.wrappers = lib.genAttrs idle (_: { enable = lib.mkDefault false; });
  };
}
