# The store belongs to an id that the container doesn't have, so all of it shows
# as nobody's. What checks that a file is root's is declared here, and only that:
# each path is copied once.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  sudo = config.security.sudo.package or pkgs.sudo;
  # sudo 1.9.13 stopped checking its plugins' owner; sudoers, sudo.conf and the
  # wrapper are copies in the container anyway. sudo-rs has no plugins.
  sudoChecks = config.security.sudo.enable && lib.versionOlder (lib.getVersion sudo) "1.9.13";

  # logrotate ignores a configuration that isn't root's, and only warns.
  logrotate = lib.optionals (
    options.services.logrotate ? configFile && config.services.logrotate.enable
  ) (lib.filter lib.isStorePath [ config.services.logrotate.configFile ]);
in
{
  nuc.rootOwnedPackages = lib.optional sudoChecks sudo ++ logrotate;
}
