# A NixOS machine on which an unprivileged user runs the example's container:
# the proof that the host's module gives all that nuc needs.
{ nuc }:
{ lib, pkgs, ... }:
let
  containerOf =
    modules:
    (import ../lib { }).mkContainer {
      name = "example";
      inherit nuc pkgs;
      modules = [ ../../examples/postgresql-nginx/configuration.nix ] ++ modules;
    };
  first = containerOf [ ];
  second = containerOf [
    {
      services.nginx.virtualHosts.localhost.listen = lib.mkForce [
        {
          addr = "0.0.0.0";
          port = 81;
        }
      ];
      users.users.late.isNormalUser = true;
      security.sudo.enable = true;
      users.users.late.extraGroups = [ "wheel" ];
      security.sudo.wheelNeedsPassword = false;
    }
  ];
in
{
  name = "nuc";

  nodes.machine = {
    imports = [ ../modules/host/nixos.nix ];
    programs.nuc = {
      enable = true;
      package = nuc;
      users = [ "ana" ];
    };
    users.users.ana = {
      isNormalUser = true;
      uid = 1000;
    };
    environment.systemPackages = [
      pkgs.curl
      pkgs.postgresql
    ];
    # The descriptors' closures, as a build by ana would have put them there.
    virtualisation.additionalPaths = [
      first.descriptor
      second.descriptor
    ];
    virtualisation.memorySize = 2048;
  };

  testScript = ''
    def ana(command):
        """A command line of ana's, as in a session of hers."""
        return machine.succeed(
            "systemd-run --quiet --machine=ana@ --user --pipe --wait --collect "
            f"--property=Delegate=yes /bin/sh -lc '{command}'"
        )

    machine.wait_for_unit("multi-user.target")
    machine.wait_for_unit("user@1000.service")

    with subtest("the host has what nuc needs"):
        print(ana("nuc doctor"))
        machine.succeed("grep -q ^ana: /etc/subuid /etc/subgid")
        controllers = machine.succeed(
            "cat /sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/cgroup.controllers"
        ).split()
        assert {"cpu", "cpuset", "io", "memory", "pids"} <= set(controllers), controllers

    with subtest("services of the container answer on the host"):
        machine.succeed(
            "systemd-run --machine=ana@ --user --unit=nuc-example --property=Delegate=yes "
            "/run/current-system/sw/bin/nuc start ${first.descriptor}"
        )
        # nuc up would start a second one beside it, in a session that ends.
        machine.wait_until_succeeds("test -d /run/user/1000/nuc/example", timeout=60)
        ana("nuc up example")
        machine.succeed("curl --fail --silent http://127.0.0.1:8080 | grep -q works")
        machine.succeed("psql -h 127.0.0.1 -p 15432 -U postgres -c 'select 1'")
        assert "running" in ana("nuc exec example -- systemctl is-system-running")

    with subtest("it is unprivileged"):
        assert machine.succeed("stat -c %U /proc/$(pgrep -o -u ana nuc)").strip() == "ana"
        # In brackets, as the pattern would find itself among root's.
        machine.succeed("pgrep -u ana -f '[n]uc-example'")
        machine.fail("pgrep -u root -f '[n]uc-example'")

    with subtest("a live switch changes what it says and keeps the rest"):
        before = ana("nuc exec example -- systemctl show -P ActiveEnterTimestamp postgresql")
        ana("nuc switch ${second.descriptor}")
        ana("nuc exec example -- id late")
        ana("nuc exec example -- curl --fail --silent http://127.0.0.1:81")
        after = ana("nuc exec example -- systemctl show -P ActiveEnterTimestamp postgresql")
        assert before == after, (before, after)

    with subtest("sudo works in the container"):
        assert "root" in ana("nuc exec example -u late -- sudo id -un")

    with subtest("rollback"):
        ana("nuc rollback example")
        machine.succeed("curl --fail --silent http://127.0.0.1:8080 | grep -q works")
        # The statuses of id and curl: nuc's own failure would be 125.
        ana("nuc exec example -- id late; test $? = 1")
        ana("nuc exec example -- curl --fail --silent http://127.0.0.1:81; test $? = 7")

    with subtest("it stops cleanly"):
        ana("nuc stop example")
        machine.fail("curl --silent http://127.0.0.1:8080")
  '';
}
