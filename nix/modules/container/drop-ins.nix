# dropIns "nuc-x" { NAME = [ "KEY=VALUE" ]; } is a package for systemd.packages that
# says more of services by name. Of one that isn't there it makes none, and it has
# the last word: NixOS calls its own drop-ins overrides.conf.
{ lib, pkgs }:
title: services:
pkgs.runCommand title { } (
  lib.concatStrings (
    lib.mapAttrsToList (
      name: lines:
      ''
        mkdir -p "$out/lib/systemd/system/${name}.service.d"
        printf '%s\n' '[Service]' ${toString (map lib.escapeShellArg lines)} \
          >"$out/lib/systemd/system/${name}.service.d/zz-${title}.conf"
      ''
    ) services
  )
)
