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

    ids.count = mkOption {
      type = types.int;
      default = 65536;
      example = 4096;
      description = "How many user and group ids the container wants. With fewer than 65535, nobody's 65534 is mapped besides.";
    };

    network.mode = mkOption {
      type = types.enum [
        "private"
        "host"
      ];
      default = "private";
      description = "`private`: a network of its own with a loopback interface. `host`: the host's network.";
    };

    ports = mkOption {
      type = types.listOf (
        types.submodule {
          options = {
            host = mkOption {
              type = types.int;
              example = 8080;
              description = "Port on the host.";
            };
            container = mkOption {
              type = types.int;
              example = 80;
              description = "Port in the container.";
            };
            protocol = mkOption {
              type = types.enum [ "tcp" ];
              default = "tcp";
              description = "Protocol of the port.";
            };
            address = mkOption {
              type = types.str;
              default = "127.0.0.1";
              description = "Address on the host to listen on.";
            };
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
      description = "Ports of the host relayed to ports of the container. `nucLib.ports` takes them from what services declare.";
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
