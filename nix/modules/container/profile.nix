# A development container has no hardware, no desktop and no manual. All of it
# can be turned on again.
{
  config,
  lib,
  options,
  ...
}:
let
  inherit (config) networking;
  known = import ./known.nix { inherit lib options; };
  off = map (name: known name (lib.mkDefault false)) [
    "boot.bcache.enable"
    "boot.enableContainers"
    "boot.loader.grub.enable"
    "documentation.doc.enable"
    "documentation.enable"
    "documentation.info.enable"
    "documentation.man.enable"
    "documentation.nixos.enable"
    "environment.stub-ld.enable"
    "fonts.fontconfig.enable"
    "hardware.enableRedistributableFirmware"
    "networking.dhcpcd.enable"
    "powerManagement.enable"
    "programs.command-not-found.enable"
    "programs.nano.enable"
    "services.logrotate.enable"
    "services.lvm.enable"
    "services.nixosManual.enable"
    "services.ntp.enable"
    "services.timesyncd.enable"
    "services.udisks2.enable"
    "sound.enable"
    "xdg.autostart.enable"
    "xdg.icons.enable"
    "xdg.menus.enable"
    "xdg.mime.enable"
    "xdg.sounds.enable"
  ];
  # Each is a process at every boot and every reload: of disks, of firmware and of
  # a console that isn't there.
  generators = lib.genAttrs [
    "systemd-bless-boot-generator"
    "systemd-cryptsetup-generator"
    "systemd-getty-generator"
    "systemd-gpt-auto-generator"
    "systemd-hibernate-resume-generator"
    "systemd-integritysetup-generator"
    "systemd-system-update-generator"
    "systemd-tpm2-generator"
    "systemd-veritysetup-generator"
  ] (_: lib.mkDefault "/dev/null");
in
{
  config = lib.mkMerge (
    off
    ++ [
      # Its setuid programs are copied at every boot.
      (known "programs.fuse.enable" (lib.mkDefault (lib.elem "/dev/fuse" config.nuc.devices)))
      # The launcher has set the network up: the script has nothing left to do.
      (lib.mkIf
        (
          networking.interfaces or { } == { }
          && networking.defaultGateway or null == null
          && networking.defaultGateway6 or null == null
          && networking.localCommands or "" == ""
        )
        {
          systemd.services.network-setup.enable = lib.mkDefault false;
          systemd.services.network-local-commands.enable = lib.mkDefault false;
        }
      )
      # The launcher makes /dev; static device nodes can't be made in a user
      # namespace. Nobody reads when the container booted from utmp.
      {
        systemd.services.systemd-tmpfiles-setup-dev.enable = lib.mkDefault false;
        systemd.services.systemd-tmpfiles-setup-dev-early.enable = lib.mkDefault false;
        systemd.services.systemd-update-utmp.enable = lib.mkDefault false;
        systemd.services.systemd-update-utmp-runlevel.enable = lib.mkDefault false;
      }
      # oomd watches the root of the host's cgroups.
      (known "systemd.oomd.enable" (lib.mkDefault false))
      (known "systemd.generators" generators)
      (known "environment.defaultPackages" (lib.mkDefault [ ]))
      (known "programs.less.lessopen" (lib.mkDefault null))
      (known "system.disableInstallerTools" (lib.mkDefault true))
    ]
  );
}
