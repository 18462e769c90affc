# The nuc.* options. Those of the descriptor mirror docs/descriptor.md; what
# they do is in the files beside this one.
{ lib, ... }:
let
  inherit (lib) mkOption types;

  nullable =
    type: description:
    mkOption {
      type = types.nullOr type;
      default = null;
      inherit description;
    };
  flag =
    default: description:
    mkOption {
      type = types.bool;
      inherit default description;
    };
in
{
  options.nuc = {
    name = mkOption {
      type = types.str;
      example = "web";
      description = "Name of the container, its hostname unless `networking.hostName` says another, and the name of its folders. `mkContainer` sets it.";
    };

    environment = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = {
        LANG = "C.UTF-8";
      };
      description = "Environment of init. Services don't inherit it: `systemd.services.<name>.environment` is theirs.";
    };

    stop = {
      signal = mkOption {
        type = types.str;
        default = "SIGRTMIN+3";
        example = "SIGTERM";
        description = "Signal that asks init to power off.";
      };
      timeoutSeconds = mkOption {
        type = types.int;
        default = 30;
        description = "How long init may take before it is killed.";
      };
    };

    ephemeral = flag false "Keep what is written in the container on a tmpfs that is forgotten at stop.";

    ephemeralSizeBytes = nullable types.int "Size of that tmpfs. Without it, the kernel's default: half of the memory.";

    tree = nullable types.str "Folder of the host that is the lower layer of the root and never written. NixOS needs none.";

    mounts = mkOption {
      type = types.listOf (
        types.submodule {
          options = {
            kind = mkOption {
              type = types.enum [
                "bind"
                "tmpfs"
              ];
              default = "bind";
              description = "`bind`: a file or folder of the host. `tmpfs`: a new file system in memory.";
            };
            source = nullable types.str "File or folder of the host, for `bind`. A string: a Nix path would be copied to the store.";
            target = mkOption {
              type = types.str;
              example = "/srv/project";
              description = "Place in the container, made if it isn't there.";
            };
            readOnly = flag false "The container can't write to it.";
            recursive = flag false "With the mounts that are below the source.";
            optional = flag false "Start without the mount if its source isn't there.";
            sizeBytes = nullable types.int "Size of a `tmpfs`.";
          };
        }
      );
      default = [ ];
      example = [
        {
          source = "/home/ana/project";
          target = "/srv/project";
        }
      ];
      description = "Mounts below the root, made in this order, after /nix/store.";
    };

    devices = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "/dev/fuse" ];
      description = "Device nodes of the host that the container gets at the same place, with the rights that you have on them.";
    };

    credentials = mkOption {
      type = types.attrsOf (
        types.submodule {
          options = {
            file = mkOption {
              # A path that is not in quotes is copied to the store, or is there
              # already with its flake: assertions.nix says what to do then.
              type = types.nullOr types.path;
              default = null;
              example = "/home/ana/.secrets/db-password";
              description = "File of the host whose content it is, byte for byte. Write it in quotes: what is in the store can be read by everyone.";
            };
            command = mkOption {
              type = types.nullOr (types.listOf types.str);
              default = null;
              example = [
                "pass"
                "show"
                "db"
              ];
              description = "Command that prints it, run on the host as the user who starts the container. The newline behind a single line is left out.";
            };
            environment = nullable types.str "Name of a variable of who runs `nuc up` or `nuc start`.";
            optional = flag false "Start without it, with a warning, if it can't be had.";
          };
        }
      );
      default = { };
      example = {
        db-password.command = [
          "pass"
          "show"
          "db"
        ];
      };
      description = "Secrets for services by their names, each from one of `file`, `command` and `environment`. A service gets one by `systemd.services.<name>.serviceConfig.LoadCredential`.";
    };

    ids.count = mkOption {
      type = types.int;
      default = 65536;
      example = 4096;
      description = "How many user and group ids the container wants. With fewer than 65535, nobody's 65534 is mapped besides.";
    };

    network = {
      mode = mkOption {
        type = types.enum [
          "private"
          "host"
        ];
        default = "private";
        description = "`private`: a network of its own with a loopback interface. `host`: the host's network.";
      };
      outbound = nullable types.bool "Whether the container reaches what the host reaches, but not the host itself. It does, unless this is false; like the next three options, it must be left out where `nuc.network.mode` is `host`.";
      hostLoopback = flag false "The container reaches what listens on the host's loopback addresses as well: at 10.117.99.2 and fd6e:7563::2.";
      allow = mkOption {
        type = types.nullOr (types.listOf types.str);
        default = null;
        example = [
          "10.0.0.0/8"
          "example.org:443/tcp"
        ];
        description = "The only places that the way out leads to: an address or a network, with or without a port, or a name with a port; IPv6 with a port is in brackets. `/tcp` or `/udp` after the port is that protocol only. Names are looked up on the host, every minute, and what the container's own lookups find is open before it is told. Nobody in the container gets rights over its network then. Without it, there is no limit.";
      };
      mtu = nullable types.int "Size in bytes of packets on the way out. Without it, 65520.";
      dns = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "9.9.9.9" ];
        description = "Addresses of name servers, which the container asks itself. Without any, the launcher passes queries on to those of the host, also when they change.";
      };
      hosts = mkOption {
        type = types.attrsOf types.str;
        default = { };
        example = {
          "mail.example.org" = "192.0.2.25";
        };
        description = "Names and their addresses, for `networking.hosts`. Containers of `nuc.links` and `nuc.dependsOn` stand there by themselves.";
      };
      idleStopSeconds = nullable types.int "Stop the container when no connection was open for so long. Only where a port has `socketActivation`.";
    };

    ports = mkOption {
      type = types.listOf (
        types.submodule {
          options = {
            host = mkOption {
              type = types.int;
              example = 8080;
              description = "Port on the host; 0 is one that the kernel chooses.";
            };
            container = mkOption {
              type = types.int;
              example = 80;
              description = "Port in the container.";
            };
            count = mkOption {
              type = types.int;
              default = 1;
              example = 10;
              description = "How many ports follow one another: `host` leads to `container`, the one after it to the one after that, and so on.";
            };
            protocol = mkOption {
              type = types.enum [
                "tcp"
                "udp"
              ];
              default = "tcp";
              description = "Protocol of the port.";
            };
            address = mkOption {
              type = types.str;
              default = "127.0.0.1";
              description = "Address on the host to listen on.";
            };
            proxyProtocol = flag false "Tell the service the client's address in a header of the PROXY protocol, version 2, which the service must expect.";
            handOver = flag false "Give the host's own listener to systemd, whose socket unit of the same address and port passes it to the service. `nuc.handOver` sets it for all ports of a unit.";
            socketActivation = flag false "Listen while the container is stopped: the first connection starts it.";
          };
        }
      );
      default = [ ];
      example = [
        {
          host = 8080;
          container = 80;
        }
      ];
      description = "Ports of the host that lead to ports of the container. `nucLib.ports` takes them from what services declare.";
    };

    env = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = {
        PGHOST = "127.0.0.1";
        PGPORT = "15432";
      };
      description = "Environment of clients on the host: development shells with this container have it. `nucLib.env` makes it of what services declare. What services inside need goes elsewhere.";
    };

    handOver = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "sshd" ];
      description = "Names of `systemd.sockets` that get their listeners from the host: clients reach the service at the same address and port, at loopback's own speed and with their own address. Each port of such a unit needs an address.";
    };

    links = mkOption {
      type = types.listOf (
        types.submodule {
          options = {
            listen = mkOption {
              type = types.int;
              example = 5432;
              description = "Port in this container.";
            };
            to = mkOption {
              type = types.str;
              example = "db";
              description = "Name of the other container.";
            };
            port = nullable types.int "Port in the other container. Without it, the same as `listen`.";
            count = mkOption {
              type = types.int;
              default = 1;
              example = 10;
              description = "How many ports follow one another: `listen` leads to `port`, the one after it to the one after that, and so on.";
            };
            protocol = mkOption {
              type = types.enum [
                "tcp"
                "udp"
              ];
              default = "tcp";
              description = "Protocol of the link.";
            };
            address = nullable types.str "Address in this container to listen on. Without it, the other container's own loopback address, which its name stands for in /etc/hosts, and, where no other link listens on the port, 127.0.0.1 and ::1 once the container is up, unless a service of its own has them by then.";
          };
        }
      );
      default = [ ];
      example = [
        {
          listen = 5432;
          to = "db";
        }
      ];
      description = "Listeners in this container, each relayed to a port of another container, which is reached by its name.";
    };

    dependsOn = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "db" ];
      description = "Names of containers that are started before this one. Each has its name in /etc/hosts, for an address where nothing listens but links to it.";
    };

    restart = mkOption {
      type = types.enum [
        "no"
        "on-failure"
        "always"
      ];
      default = "no";
      description = "When the container is started again that has ended by itself: never, when it failed, or also after a poweroff inside.";
    };

    watchdogSeconds = mkOption {
      type = types.int;
      default = 0;
      example = 30;
      description = "After how many seconds of silence systemd ends the supervisor; 0 is never.";
    };

    resources = {
      memoryMax = nullable types.int "Memory in bytes beyond which processes are killed.";
      memoryHigh = nullable types.int "Memory in bytes beyond which processes are slowed down and their memory is reclaimed.";
      cpuQuotaPercent = nullable types.int "CPU time: 150 is one CPU and a half.";
      cpuWeight = nullable types.int "Share of the CPU when it is short; the kernel's default is 100.";
      tasksMax = nullable types.int "Processes and threads at one time.";
      ioWeight = nullable types.int "Share of the disks when they are busy; the kernel's default is 100.";
      optional = flag false "Start without the limits that can't be applied.";
    };

    security.seccomp = mkOption {
      type = types.enum [
        "default"
        "off"
      ];
      default = "default";
      description = "`default`: a filter denies system calls that containers for development have no use for. `off`: there is no filter, as perf, rr, bpf programs and io_uring need it.";
    };

    ready = {
      units = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "postgresql.service" ];
        description = "Units that must be active for the container to be ready, with their suffix.";
      };
      timeoutSeconds = mkOption {
        type = types.int;
        default = 90;
        description = "How long the container may take to be ready.";
      };
    };

    rootOwnedPackages = mkOption {
      # Not types.package, which would have a path that is not built yet built.
      type = types.listOf types.path;
      default = [ ];
      description = "Packages, and other store paths, that the container sees as owned by its root, for programs that check it: the store itself shows as nobody's.";
    };

    nix.enable = flag false "Nix in the container, through the daemon of the host. What is built there is kept only as long as the host's garbage collector lets it.";

    sandboxFallback.units = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "systemd-networkd" ];
      description = "Services, without their suffix, whose sandbox can't be set up in a container (status 226/NAMESPACE): they run without the part that needs the host's /proc, and without credentials.";
    };

    realtime = mkOption {
      type = types.enum [
        "neutralise"
        "keep"
      ];
      default = "neutralise";
      description = "Real-time scheduling of services, which an unprivileged user may not give: `neutralise` runs them with ordinary scheduling and a warning, `keep` lets them fail where the host doesn't allow it.";
    };

    host = {
      kernelModules = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "wireguard" ];
        description = "Kernel modules that the host has loaded. A container can't load any; those in `boot.kernelModules` that aren't here are refused.";
      };
      sysctls = mkOption {
        type = types.listOf types.str;
        default = [ ];
        example = [ "vm.max_map_count" ];
        description = "Names of sysctls that the host has set. Those in `boot.kernel.sysctl` that aren't here and don't belong to the container are refused.";
      };
    };

    descriptor = mkOption {
      type = types.str;
      internal = true;
      readOnly = true;
      description = "The descriptor's text.";
    };
  };
}
