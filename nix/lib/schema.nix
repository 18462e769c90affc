# The descriptor's keys as a table, for check.nix. docs/descriptor.schema.json
# is what binds; test/nix compares the two. (The schema itself can't be read
# here: its patterns hold NUL, which a Nix string can't.)
let
  maxInt = 9223372036854775807;
  maxSeconds = 24 * 60 * 60;
  mebibyte = 1048576;
  page = 4096;

  text = rule "text";
  rule = name: {
    type = "string";
    rule = name;
  };
  enum = values: {
    type = "string";
    enum = values;
  };
  boolean = {
    type = "boolean";
  };
  integer = minimum: maximum: {
    type = "integer";
    inherit minimum maximum;
  };
  atLeast = minimum: integer minimum maxInt;
  port = integer 1 65535;
  protocol = enum [
    "tcp"
    "udp"
  ];
  list = items: {
    type = "array";
    inherit items;
  };
  mapOf = keyRule: values: {
    type = "map";
    inherit keyRule values;
  };
  object = required: fields: {
    type = "object";
    inherit required fields;
  };
in
object
  [
    "version"
    "name"
    "system"
  ]
  {
    version = integer 1 1;
    name = rule "name";
    system = object [ "init" ] {
      init = rule "file";
      arguments = list text;
      environment = mapOf "variable" text;
      toplevel = rule "storePath";
      switch = {
        type = "array";
        first = rule "file";
        items = text;
      };
      ttyGroup = integer 0 2147483647;
      stop = object [ ] {
        signal = rule "signal";
        timeoutSeconds = integer 1 maxSeconds;
      };
    };
    root =
      object [ ] {
        state = boolean;
        tree = rule "path";
        ephemeral = boolean;
        sizeBytes = atLeast page;
      }
      // {
        also = "root";
      };
    mounts =
      list (
        object [ "target" ] {
          kind = enum [
            "bind"
            "tmpfs"
          ];
          source = rule "path";
          target = rule "target";
          readOnly = boolean;
          recursive = boolean;
          optional = boolean;
          sizeBytes = atLeast page;
        }
        // {
          also = "mount";
        }
      )
      // {
        also = "mounts";
      };
    rootOwned = list (rule "storePath");
    devices = list (rule "device");
    credentials =
      list (
        object [ "name" ] {
          name = rule "credential";
          file = rule "path";
          command = {
            type = "array";
            first = rule "program";
            items = text;
          };
          environment = rule "exported";
          optional = boolean;
        }
        // {
          also = "credential";
        }
      )
      // {
        also = "credentials";
      };
    ids = object [ ] {
      count = integer 1 2147483648;
    };
    network =
      object [ ] {
        mode = enum [
          "private"
          "host"
        ];
        outbound = boolean;
        hostLoopback = boolean;
        allow = list (rule "allow");
        mtu = integer 1280 65520;
        dns = list (rule "address");
        hosts = mapOf "hostName" (rule "address");
        ports =
          list (
            object
              [
                "host"
                "container"
              ]
              {
                host = integer 0 65535;
                container = port;
                count = port;
                inherit protocol;
                address = rule "address";
                proxyProtocol = boolean;
                handOver = boolean;
                socketActivation = boolean;
              }
            // {
              also = "port";
            }
          )
          // {
            also = "ports";
          };
        idleStopSeconds = integer 1 maxSeconds;
      }
      // {
        also = "network";
      };
    links =
      list (
        object
          [
            "listen"
            "to"
          ]
          {
            listen = port;
            to = rule "name";
            inherit port protocol;
            count = port;
            address = rule "address";
          }
        // {
          also = "link";
        }
      )
      // {
        also = "links";
      };
    dependsOn = list (rule "name") // {
      also = "dependsOn";
    };
    restart = enum [
      "no"
      "on-failure"
      "always"
    ];
    watchdogSeconds = integer 0 maxSeconds;
    resources = object [ ] {
      memoryMax = atLeast mebibyte;
      memoryHigh = atLeast mebibyte;
      cpuQuotaPercent = integer 1 1000000;
      cpuWeight = integer 1 10000;
      tasksMax = integer 1 4194304;
      ioWeight = integer 1 10000;
      optional = boolean;
    };
    security = object [ ] {
      seccomp = enum [
        "default"
        "off"
      ];
    };
    ready = object [ ] {
      notify = boolean;
      units = list (rule "unit");
      timeoutSeconds = integer 1 maxSeconds;
    };
  }
// {
  also = "descriptor";
}
