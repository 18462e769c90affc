# The console is the terminal that started the container: nobody reads the
# journal of a container whose boot hangs.
{ config, lib, ... }:
let
  # Of a file system of the configuration's own, which systemd mounts.
  later = lib.any (
    fs:
    lib.elem fs.mountPoint [
      "/var"
      "/var/log"
      "/var/log/journal"
    ]
  ) (lib.attrValues config.fileSystems);
in
{
  config = lib.mkMerge [
    { services.journald.console = lib.mkDefault "/dev/console"; }
    # /var is there from the start. With this file journald writes there at once;
    # without, to /run first and, when `journalctl --flush` has said that it may,
    # to a second journal.
    (lib.mkIf (!later) {
      system.activationScripts.journal = ''
        mkdir -p /run/systemd/journal
        : >/run/systemd/journal/flushed
      '';
      systemd.services.systemd-journal-flush.enable = lib.mkDefault false;
    })
  ];
}
