# What `make bench` measures: containers with nuc's modules, beside the same
# configurations with NixOS' own boot.isContainer alone.
{
  # name: modules: a container with nuc's modules
  container,
  nixpkgs,
  nuc,
  pkgs,
  backing,
  root,
  mounts,
  # modules of a configuration with some services
  services,
}:
let
  # Nothing of it runs, it can't be built with Debian's files, and the manual
  # alone takes as long to evaluate as all else.
  small =
    { options, ... }:
    {
      config = {
        fonts.fontconfig.enable = false;
      }
      // (
        if options ? documentation then
          { documentation.enable = false; }
        else
          { services.nixosManual.enable = false; }
      );
    };

  plain =
    name: modules:
    (import (nixpkgs + "/nixos/lib/eval-config.nix") {
      inherit (pkgs) system;
      modules =
        backing
        ++ modules
        ++ [
          small
          {
            boot.isContainer = true;
            networking.hostName = name;
            # As NixOS' own containers have it.
            networking.useDHCP = false;
            nixpkgs.pkgs = pkgs;
          }
        ];
    }).config.system.build.toplevel;

  # The launcher's part is the same for both.
  plainDescriptor =
    name: toplevel:
    pkgs.writeText "nuc-${name}.json" (
      nuc.mkDescriptor {
        inherit name;
        system = {
          init = "${toplevel}/init";
          toplevel = "${toplevel}";
          ttyGroup = 3;
        };
        root.tree = root;
        mounts = [
          {
            source = "/nix/store";
            target = "/nix/store";
            readOnly = true;
          }
        ]
        ++ mounts;
      }
    );

  unit =
    seconds:
    { pkgs, ... }:
    {
      systemd.services.changing = {
        description = "A service that is changed";
        wantedBy = [ "multi-user.target" ];
        serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep ${seconds}";
      };
    };
in
{
  profile = (container "bench-profile" [ ]).descriptor;
  plain = plainDescriptor "bench-plain" (plain "bench-plain" [ ]);

  # Two generations that differ in one unit.
  one = (container "bench-switch" [ (unit "100001") ]).descriptor;
  other = (container "bench-switch" [ (unit "100002") ]).descriptor;

  evaluate = {
    nuc = (container "bench-evaluate" services).descriptor.drvPath;
    plain = (plain "bench-evaluate" services).drvPath;
  };
}
