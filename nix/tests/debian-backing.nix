# What Debian's files and nixos-18.03 need of a configuration. None of it has to
# do with user namespaces: that is nuc's modules' to know.
{
  lib,
  modulesPath,
  ...
}:
{
  system.activationScripts.usrbinenv = lib.mkForce "";
  system.activationScripts.binsh = lib.mkForce "";

  # The only locale in the tree.
  i18n.defaultLocale = "C.UTF-8";
  security.polkit.enable = false;

  # Debian's PAM has neither pam_tally nor a default for a missing file.
  environment.etc."security/pam_env.conf".text = "";
  security.pam.services = {
    login.logFailures = lib.mkForce false;
    sshd.logFailures = lib.mkForce false;
    su.logFailures = lib.mkForce false;
    # Debian's su has a service of its own for `su -`.
    su-l = {
      rootOK = true;
      startSession = true;
    };
  };

  # A newer systemd's own unit for D-Bus activation and users' runtime folders,
  # and a condition on where Debian has D-Bus' unit.
  systemd.additionalUpstreamSystemUnits = [
    "dbus-org.freedesktop.login1.service"
    "user-runtime-dir@.service"
  ];
  systemd.services.systemd-logind.unitConfig.ConditionPathExists = "";

  # To become another user, Debian's nscd wants the right to write to the
  # host's audit log, which no container has.
  services.nscd.config = builtins.replaceStrings [ "server-user" ] [ "# server-user" ] (
    builtins.readFile (modulesPath + "/services/system/nscd.conf")
  );

  # Newer systemctl indents its lists, which the script reads as no units.
  system.extraSystemBuilderCmds = ''
    substituteInPlace $out/bin/switch-to-configuration --replace 'list-units --full' 'list-units --plain --full'
  '';

  # Folders that Debian's programs were built to use.
  services.postgresql.extraConfig = "unix_socket_directories = '/run/postgresql'";
  systemd.services.postgresql.serviceConfig.RuntimeDirectory = "postgresql";
  system.activationScripts.debianFolders = "mkdir -p /var/lib/nginx /var/log/nginx /run/sshd";
}
