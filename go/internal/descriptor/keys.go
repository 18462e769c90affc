package descriptor

import "math"

// kind is the JSON type of a key's value, in the words of the reference.
type kind string

const (
	isObject  kind = "object"
	isObjects kind = "array of objects"
	isString  kind = "string"
	isStrings kind = "array of strings"
	isMap     kind = "object of strings"
	isInteger kind = "integer"
	isBoolean kind = "boolean"
)

// rule is a check of a string that check.go knows by name.
type rule string

const (
	ruleText      rule = "text"
	ruleName      rule = "name"
	rulePath      rule = "path"
	ruleFile      rule = "file"
	ruleStorePath rule = "storePath"
	ruleDevice    rule = "device"
	ruleTarget    rule = "target"
	ruleSignal    rule = "signal"
	ruleAddress   rule = "address"
	ruleHostName  rule = "hostName"
	ruleAllow     rule = "allow"
	ruleUnit      rule = "unit"
	ruleVariable  rule = "variable"
	// ruleCredential is a name that systemd takes for a credential.
	ruleCredential rule = "credential"
	// ruleProgram is a program of the host's.
	ruleProgram rule = "program"
	// ruleExported is the name of a variable of the host's.
	ruleExported rule = "exported"
	// ruleCommand: the first word is a file, the others are text.
	ruleCommand rule = "command"
	// ruleHostCommand: the first word is a program, the others are text.
	ruleHostCommand rule = "hostCommand"
)

// key describes one key of the descriptor. The reference, the schema and the
// checker all come from this table; it holds constants and functions only, so
// that the linker lays it out and no start pays for it.
type key struct {
	name     string
	kind     kind
	required bool
	unit     string
	def      string // as JSON; "" is none
	example  string // as JSON
	doc      string

	min, max int64    // of an integer
	enum     []string // all values of a string
	rule     rule     // of a string, or of each string
	keyRule  rule     // of an object's keys

	// at points into the descriptor; within an array, into its last element.
	at func(*Descriptor) any
	// begin makes the object that at of its fields points into.
	begin  func(*Descriptor)
	fields []key
	// end checks fields against each other.
	end func(*reader, *object)
	// each is told of every good string of an array and every name of a map.
	each func(*reader, token)
}

const (
	mebibyte   = 1 << 20
	maxSeconds = 24 * 60 * 60
	maxIDs     = 1 << 31
	// The kernel's PID_MAX_LIMIT on 64-bit machines (proc_sys_kernel(5)).
	maxTasks = 1 << 22
	maxBytes = math.MaxInt64
	pageSize = 4096
	// What IPv6 asks of every link (RFC 8200), and the most that pasta(1) takes.
	minMTU, maxMTU = 1280, 65520
)

var keys = []key{
	{
		name: "version", kind: isInteger, required: true, min: Version, max: Version, example: `1`,
		at:  func(d *Descriptor) any { return &d.Version },
		doc: "Version of this format. A descriptor made for a newer version is refused; upgrade nuc then.",
	},
	{
		name: "name", kind: isString, required: true, rule: ruleName, example: `"web"`,
		at:  func(d *Descriptor) any { return &d.Name },
		doc: "Name of the container, its hostname and the name of its folders: a lower-case letter or digit, then up to 62 more of these or dashes.",
	},
	{
		name: "system", kind: isObject, required: true, example: `{ "init": "/sbin/init" }`, fields: systemKeys,
		doc: "What runs as pid 1, and how it is switched and stopped.",
	},
	{
		name: "root", kind: isObject, example: `{ "tree": "/srv/trees/debian-13" }`, fields: rootKeys, end: checkRoot,
		doc: "The root file system. Without it, a folder in the state folder that starts empty.",
	},
	{
		name: "mounts", kind: isObjects, example: `[{ "source": "/nix/store", "target": "/nix/store", "readOnly": true }]`,
		begin:  func(d *Descriptor) { d.Mounts = append(d.Mounts, Mount{}) },
		fields: mountKeys, end: checkMount,
		doc: "Mounts below the root, made in this order. All are nosuid and nodev.",
	},
	{
		name: "rootOwned", kind: isStrings, rule: ruleStorePath, example: `["/nix/store/4yzd4kvvzs5wsjcjjsvdgdpzlmfyngp3-sudo-1.9.17"]`,
		at:  func(d *Descriptor) any { return &d.RootOwned },
		doc: "Store paths that the container sees as owned by its root. Each is copied once into a cache and bound read-only over the original.",
	},
	{
		name: "devices", kind: isStrings, rule: ruleDevice, example: `["/dev/fuse", "/dev/net/tun"]`,
		at:  func(d *Descriptor) any { return &d.Devices },
		doc: "Device nodes of the host that the container gets at the same place, with the rights that you have on them.",
	},
	{
		name: "credentials", kind: isObjects, example: `[{ "name": "db-password", "command": ["pass", "show", "db"] }]`,
		begin:  func(d *Descriptor) { d.Credentials = append(d.Credentials, Credential{}) },
		fields: credentialKeys, end: checkCredential,
		doc: "Secrets for services, which get them by systemd's `LoadCredential=`. Each has exactly one of `file`, `command` and `environment`. They are had anew at each start by `nuc up`, `nuc start` or systemd, and kept in memory until the container has stopped; a reboot inside gets the same ones. Names and contents together are at most 1 MiB.",
	},
	{
		name: "ids", kind: isObject, example: `{ "count": 65536 }`, fields: idsKeys,
		doc: "User and group ids of the container.",
	},
	{
		name: "network", kind: isObject, example: `{ "ports": [{ "host": 8080, "container": 80 }] }`, fields: networkKeys, end: checkNetwork,
		doc: "What the container reaches and what reaches it.",
	},
	{
		name: "links", kind: isObjects, example: `[{ "listen": 5432, "to": "db" }]`,
		begin:  func(d *Descriptor) { d.Links = append(d.Links, Link{}) },
		fields: linkKeys, end: checkLink,
		doc: "Listeners in this container, each relayed to a port of another container, which is reached by its name. Refused with `network.mode` `host`.",
	},
	{
		name: "dependsOn", kind: isStrings, rule: ruleName, def: `[]`, example: `["db"]`, each: checkDependsOn,
		at:  func(d *Descriptor) any { return &d.DependsOn },
		doc: "Names of containers that are started before this one. Each has its name in /etc/hosts, for an address where nothing listens but links to it.",
	},
	{
		name: "restart", kind: isString, enum: []string{RestartNo, RestartOnFailure, RestartAlways}, def: `"no"`, example: `"on-failure"`,
		at:  func(d *Descriptor) any { return &d.Restart },
		doc: "When a container in the background is started again that has ended by itself: never, when it failed, or also after a poweroff inside. A first start that fails is not repeated, nor what `nuc stop` or systemd has stopped. Pauses between starts grow from 1 s to 1 min, and begin anew after a minute of running. With `socketActivation` it is clients who start it again.",
	},
	{
		name: "watchdogSeconds", kind: isInteger, unit: "s", def: `0`, min: 0, max: maxSeconds, example: `30`,
		at:  func(d *Descriptor) any { return &d.WatchdogSeconds },
		doc: "After how long systemd ends a supervisor, of which it is told three times in that time that supervisor and keeper answer; `restart` says whether it is started again. 0 is no watch. Without a systemd of the user's nobody watches.",
	},
	{
		name: "resources", kind: isObject, example: `{ "memoryMax": 1073741824 }`, fields: resourcesKeys,
		begin: func(d *Descriptor) { d.Resources = &Resources{} },
		doc:   "Limits of everything in the container together (cgroup v2). A limit whose controller isn't delegated to you is refused at the start, unless `resources.optional`.",
	},
	{
		name: "security", kind: isObject, example: `{ "seccomp": "off" }`, fields: securityKeys,
		doc: "What the container's processes may do beside what namespaces and ids allow.",
	},
	{
		name: "ready", kind: isObject, example: `{ "units": ["nginx.service"] }`, fields: readyKeys,
		doc: "When the container counts as ready: all of what is said here.",
	},
}

var systemKeys = []key{
	{
		name: "init", kind: isString, required: true, rule: ruleFile, example: `"/sbin/init"`,
		at:  func(d *Descriptor) any { return &d.System.Init },
		doc: "The program that runs as pid 1, an absolute path inside the root.",
	},
	{
		name: "arguments", kind: isStrings, rule: ruleText, def: `[]`, example: `["--log-level=debug"]`,
		at:  func(d *Descriptor) any { return &d.System.Arguments },
		doc: "Arguments of init, without its own name.",
	},
	{
		name: "environment", kind: isMap, rule: ruleText, keyRule: ruleVariable, def: `{}`, example: `{ "LANG": "C.UTF-8" }`,
		at:  func(d *Descriptor) any { return &d.System.Environment },
		doc: "Environment of init, besides what the launcher sets: `container`, `container_uuid`, `NOTIFY_SOCKET` and `CREDENTIALS_DIRECTORY`, which can't stand here.",
	},
	{
		name: "toplevel", kind: isString, rule: ruleStorePath, example: `"/nix/store/1kc7qyr6pfb3wj1gqd5z5g5k2yx1gnqv-nixos-system-web-26.05"`,
		at:  func(d *Descriptor) any { return &d.System.Toplevel },
		doc: "Store path of the NixOS system, where it is one: `/nix/store/` and one name.",
	},
	{
		name: "switch", kind: isStrings, rule: ruleCommand, example: `["/nix/var/nix/profiles/system/bin/switch-to-configuration", "switch"]`,
		at:  func(d *Descriptor) any { return &d.System.Switch },
		doc: "Command that activates a new generation inside. Its first word is an absolute path inside the root.",
	},
	{
		name: "ttyGroup", kind: isInteger, unit: "gid", def: `5`, min: 0, max: maxIDs - 1, example: `3`,
		at:  func(d *Descriptor) any { return &d.System.TTYGroup },
		doc: "Group of terminals in the container: 5 on Debian, 3 on NixOS.",
	},
	{
		name: "stop", kind: isObject, example: `{ "signal": "SIGTERM", "timeoutSeconds": 10 }`, fields: stopKeys,
		doc: "How the container is stopped.",
	},
}

var stopKeys = []key{
	{
		name: "signal", kind: isString, rule: ruleSignal, def: `"SIGRTMIN+3"`, example: `"SIGTERM"`,
		at:  func(d *Descriptor) any { return &d.System.Stop.Signal },
		doc: "Signal that asks init to power off, a name as in signal(7): `SIGTERM`, `SIGRTMIN+3` (systemd's). `SIGKILL` and `SIGSTOP` ask nothing and are refused.",
	},
	{
		name: "timeoutSeconds", kind: isInteger, unit: "seconds", def: `30`, min: 1, max: maxSeconds, example: `10`,
		at:  func(d *Descriptor) any { return &d.System.Stop.TimeoutSeconds },
		doc: "How long init may take before it is killed.",
	},
}

var rootKeys = []key{
	{
		name: "state", kind: isBoolean, def: `true`, example: `true`,
		at:  func(d *Descriptor) any { return &d.Root.State },
		doc: "Keep what is written in a folder in the state folder. It is the opposite of `root.ephemeral`, whichever of the two is said.",
	},
	{
		name: "tree", kind: isString, rule: rulePath, example: `"/srv/trees/debian-13"`,
		at:  func(d *Descriptor) any { return &d.Root.Tree },
		doc: "Folder of the host that is the lower layer of an overlay and never written. The upper layer is in the state folder, or ephemeral.",
	},
	{
		name: "ephemeral", kind: isBoolean, def: `false`, example: `true`,
		at:  func(d *Descriptor) any { return &d.Root.Ephemeral },
		doc: "Keep what is written on a tmpfs that is forgotten at stop.",
	},
	{
		name: "sizeBytes", kind: isInteger, unit: "bytes", min: pageSize, max: maxBytes, example: `1073741824`,
		at:  func(d *Descriptor) any { return &d.Root.SizeBytes },
		doc: "Size of that tmpfs; only with `root.ephemeral`. Without it, the kernel's default: half of the memory.",
	},
}

// mount returns the element being read.
func (d *Descriptor) mount() *Mount { return &d.Mounts[len(d.Mounts)-1] }

var mountKeys = []key{
	{
		name: "kind", kind: isString, enum: []string{KindBind, KindTmpfs}, def: `"bind"`, example: `"tmpfs"`,
		at:  func(d *Descriptor) any { return &d.mount().Kind },
		doc: "`bind`: a file or folder of the host. `tmpfs`: a new file system in memory.",
	},
	{
		name: "source", kind: isString, rule: rulePath, example: `"/nix/store"`,
		at:  func(d *Descriptor) any { return &d.mount().Source },
		doc: "File or folder of the host. Required for `bind`, refused for `tmpfs`.",
	},
	{
		name: "target", kind: isString, required: true, rule: ruleTarget, example: `"/nix/store"`,
		at:  func(d *Descriptor) any { return &d.mount().Target },
		doc: "Place in the container, made if it isn't there. No two mounts share one; `/`, `/run` and what is at or below `/proc`, `/sys`, `/dev` and `/run/host` belong to the launcher.",
	},
	{
		name: "readOnly", kind: isBoolean, def: `false`, example: `true`,
		at:  func(d *Descriptor) any { return &d.mount().ReadOnly },
		doc: "The container can't write to it.",
	},
	{
		name: "recursive", kind: isBoolean, def: `false`, example: `true`,
		at:  func(d *Descriptor) any { return &d.mount().Recursive },
		doc: "With the mounts that are below the source.",
	},
	{
		name: "optional", kind: isBoolean, def: `false`, example: `true`,
		at:  func(d *Descriptor) any { return &d.mount().Optional },
		doc: "Start without the mount if its source isn't there.",
	},
	{
		name: "sizeBytes", kind: isInteger, unit: "bytes", min: pageSize, max: maxBytes, example: `67108864`,
		at:  func(d *Descriptor) any { return &d.mount().SizeBytes },
		doc: "Size of a `tmpfs`, refused for `bind`. Without it, the kernel's default: half of the memory.",
	},
}

// credential returns the element being read.
func (d *Descriptor) credential() *Credential { return &d.Credentials[len(d.Credentials)-1] }

var credentialKeys = []key{
	{
		name: "name", kind: isString, required: true, rule: ruleCredential, example: `"db-password"`,
		at:  func(d *Descriptor) any { return &d.credential().Name },
		doc: "What services know it by, and the name of a file in `/run/host/credentials`: at most 255 printable ASCII characters without `/` and `:`. No two credentials share one.",
	},
	{
		name: "file", kind: isString, rule: rulePath, example: `"/home/ana/.secrets/db-password"`,
		at:  func(d *Descriptor) any { return &d.credential().File },
		doc: "File of the host whose content it is, byte for byte.",
	},
	{
		name: "command", kind: isStrings, rule: ruleHostCommand, example: `["pass", "show", "db"]`,
		at:  func(d *Descriptor) any { return &d.credential().Command },
		doc: "Command that prints it, run on the host as the user who starts the container, in that user's home folder and with no shell: first an absolute path, or a name to be found in PATH. The newline behind a single line is left out; several lines are taken as they are. It has 30 seconds, and may ask on the terminal of `nuc up` and `nuc start`.",
	},
	{
		name: "environment", kind: isString, rule: ruleExported, example: `"DB_PASSWORD"`,
		at:  func(d *Descriptor) any { return &d.credential().Environment },
		doc: "Name of a variable of who runs `nuc up` or `nuc start`. Where systemd starts the container by itself (`nuc enable`), nobody has one to give.",
	},
	{
		name: "optional", kind: isBoolean, def: `false`, example: `true`,
		at:  func(d *Descriptor) any { return &d.credential().Optional },
		doc: "Start without it, with a warning, if the file or the variable isn't there or the command fails.",
	},
}

var idsKeys = []key{
	{
		name: "count", kind: isInteger, unit: "ids", def: `65536`, min: 1, max: maxIDs, example: `1000`,
		at:  func(d *Descriptor) any { return &d.IDs.Count },
		doc: "How many user and group ids the container wants. Fewer are taken from /etc/subuid and /etc/subgid where there are fewer.",
	},
}

var networkKeys = []key{
	{
		name: "mode", kind: isString, enum: []string{NetworkPrivate, NetworkHost}, def: `"private"`, example: `"host"`,
		at:  func(d *Descriptor) any { return &d.Network.Mode },
		doc: "`private`: a network of its own with a loopback interface. `host`: the host's network.",
	},
	{
		name: "outbound", kind: isBoolean, def: `true`, example: `false`,
		at:  func(d *Descriptor) any { return &d.Network.Outbound },
		doc: "The container reaches what the host reaches, but not the host itself. Like the next three keys, it is refused with `network.mode` `host`.",
	},
	{
		name: "hostLoopback", kind: isBoolean, def: `false`, example: `true`,
		at:  func(d *Descriptor) any { return &d.Network.HostLoopback },
		doc: "The container reaches what listens on the host's loopback addresses as well: at 10.117.99.2 and fd6e:7563::2. Only with `network.outbound`.",
	},
	{
		name: "allow", kind: isStrings, rule: ruleAllow, example: `["10.0.0.0/8", "[2001:db8::1]:443", "example.org:443/tcp"]`,
		at:  func(d *Descriptor) any { return &d.Network.Allow },
		doc: "The only places that the way out leads to: an address or a network, with or without a port, or a name with a port; IPv6 with a port is in brackets. `/tcp` or `/udp` after the port is that protocol only. Names are looked up on the host, every minute, and what the container's own lookups find is open before it is told. Nobody in the container gets rights over its network then. Without it, there is no limit. Only with `network.outbound`, and not beside a port with `handOver`.",
	},
	{
		name: "mtu", kind: isInteger, unit: "bytes", min: minMTU, max: maxMTU, example: `1500`,
		at:  func(d *Descriptor) any { return &d.Network.MTU },
		doc: "Size of packets on the way out. Without it, 65520. Only with `network.outbound`.",
	},
	{
		name: "dns", kind: isStrings, rule: ruleAddress, def: `[]`, example: `["9.9.9.9"]`,
		at:  func(d *Descriptor) any { return &d.Network.DNS },
		doc: "Addresses of name servers, which the container asks itself. Without any, the launcher passes queries on to those of the host, also when they change.",
	},
	{
		name: "hosts", kind: isMap, rule: ruleAddress, keyRule: ruleHostName, def: `{}`, example: `{ "mail.example.org": "192.0.2.25" }`, each: noteHost,
		at:  func(d *Descriptor) any { return &d.Network.Hosts },
		doc: "Names and their addresses, in lower case and not `localhost`, for the container's /etc/hosts. Containers of `links` and `dependsOn` stand there by themselves.",
	},
	{
		name: "ports", kind: isObjects, example: `[{ "host": 8080, "container": 80 }]`,
		begin:  func(d *Descriptor) { d.Network.Ports = append(d.Network.Ports, Port{}) },
		fields: portKeys, end: checkPort,
		doc: "Ports of the host that lead to ports of the container. Refused with `network.mode` `host`, where services listen on the host already.",
	},
	{
		name: "idleStopSeconds", kind: isInteger, unit: "seconds", min: 1, max: maxSeconds, example: `600`,
		at:  func(d *Descriptor) any { return &d.Network.IdleStopSeconds },
		doc: "Stop the container when no connection was open for so long. Without it, never. Only where a port has `socketActivation`.",
	},
}

// port returns the element being read.
func (d *Descriptor) port() *Port { return &d.Network.Ports[len(d.Network.Ports)-1] }

var portKeys = []key{
	{
		name: "host", kind: isInteger, required: true, unit: "port", min: 0, max: math.MaxUint16, example: `8080`,
		at:  func(d *Descriptor) any { return &d.port().Host },
		doc: "Port on the host; 0 is one that the kernel chooses, or with `network.ports[].count` the first of that many free ones in a row; `nuc status` and `nuc ps` show it. The same one can stand twice only with another address or protocol; `0.0.0.0` is every IPv4 address, `::` every IPv6 address.",
	},
	{
		name: "container", kind: isInteger, required: true, unit: "port", min: 1, max: math.MaxUint16, example: `80`,
		at:  func(d *Descriptor) any { return &d.port().Container },
		doc: "Port in the container.",
	},
	{
		name: "count", kind: isInteger, unit: "ports", def: `1`, min: 1, max: math.MaxUint16, example: `10`,
		at:  func(d *Descriptor) any { return &d.port().Count },
		doc: "How many ports follow one another: `host` leads to `container`, the one after it to the one after that, and so on.",
	},
	{
		name: "protocol", kind: isString, enum: []string{TCP, UDP}, def: `"tcp"`, example: `"udp"`,
		at:  func(d *Descriptor) any { return &d.port().Protocol },
		doc: "`tcp` or `udp`.",
	},
	{
		name: "address", kind: isString, rule: ruleAddress, def: `"127.0.0.1"`, example: `"::1"`,
		at:  func(d *Descriptor) any { return &d.port().Address },
		doc: "Address on the host to listen on, an IPv4 or IPv6 address without a zone.",
	},
	{
		name: "proxyProtocol", kind: isBoolean, def: `false`, example: `true`,
		at:  func(d *Descriptor) any { return &d.port().ProxyProtocol },
		doc: "Tell the service the client's address: a header of the PROXY protocol, version 2, comes before what the client sends. The service must expect it. Only with `tcp`.",
	},
	{
		name: "handOver", kind: isBoolean, def: `false`, example: `true`,
		at:  func(d *Descriptor) any { return &d.port().HandOver },
		doc: "Give the host's own listener to init (`LISTEN_FDS`, sd_listen_fds(3)), whose socket unit of the same address and port passes it to the service: nothing is relayed, and the service sees the client's address. `host` and `container` are the same; not with `proxyProtocol` or `socketActivation`. The container can do with that socket what a process of the host could: see security.md.",
	},
	{
		name: "socketActivation", kind: isBoolean, def: `false`, example: `true`,
		at:  func(d *Descriptor) any { return &d.port().SocketActivation },
		doc: "Listen while the container is stopped: the first connection starts it, and waits until it is ready. Only with `tcp`.",
	},
}

// link returns the element being read.
func (d *Descriptor) link() *Link { return &d.Links[len(d.Links)-1] }

var linkKeys = []key{
	{
		name: "listen", kind: isInteger, required: true, unit: "port", min: 1, max: math.MaxUint16, example: `5432`,
		at:  func(d *Descriptor) any { return &d.link().Listen },
		doc: "Port in this container. The same one can stand twice only with another address, protocol or `to`.",
	},
	{
		name: "to", kind: isString, required: true, rule: ruleName, example: `"db"`,
		at:  func(d *Descriptor) any { return &d.link().To },
		doc: "Name of the other container. It needn't run, or be there, when this one starts.",
	},
	{
		name: "port", kind: isInteger, unit: "port", min: 1, max: math.MaxUint16, example: `5433`,
		at:  func(d *Descriptor) any { return &d.link().Port },
		doc: "Port in the other container. Without it, the same as `listen`.",
	},
	{
		name: "count", kind: isInteger, unit: "ports", def: `1`, min: 1, max: math.MaxUint16, example: `10`,
		at:  func(d *Descriptor) any { return &d.link().Count },
		doc: "How many ports follow one another: `listen` leads to `port`, the one after it to the one after that, and so on.",
	},
	{
		name: "protocol", kind: isString, enum: []string{TCP, UDP}, def: `"tcp"`, example: `"udp"`,
		at:  func(d *Descriptor) any { return &d.link().Protocol },
		doc: "`tcp` or `udp`.",
	},
	{
		name: "address", kind: isString, rule: ruleAddress, example: `"127.0.0.1"`,
		at:  func(d *Descriptor) any { return &d.link().Address },
		doc: "Address in this container to listen on. Without it, the other container's own loopback address (of 127.64.0.0/10, made of its name, which stands for it in /etc/hosts), and, where no other link listens on the port, 127.0.0.1 and ::1 once the container is up, unless a service of its own has them by then.",
	},
}

var resourcesKeys = []key{
	{
		name: "memoryMax", kind: isInteger, unit: "bytes", min: mebibyte, max: maxBytes, example: `1073741824`,
		at:  func(d *Descriptor) any { return &d.Resources.MemoryMax },
		doc: "Memory beyond which processes are killed (memory.max).",
	},
	{
		name: "memoryHigh", kind: isInteger, unit: "bytes", min: mebibyte, max: maxBytes, example: `805306368`,
		at:  func(d *Descriptor) any { return &d.Resources.MemoryHigh },
		doc: "Memory beyond which processes are slowed down and their memory is reclaimed (memory.high).",
	},
	{
		name: "cpuQuotaPercent", kind: isInteger, unit: "percent of one CPU", min: 1, max: 1000000, example: `150`,
		at:  func(d *Descriptor) any { return &d.Resources.CPUQuotaPercent },
		doc: "CPU time in each tenth of a second: 150 is one CPU and a half (cpu.max).",
	},
	{
		name: "cpuWeight", kind: isInteger, unit: "weight", min: 1, max: 10000, example: `50`,
		at:  func(d *Descriptor) any { return &d.Resources.CPUWeight },
		doc: "Share of the CPU when it is short; the kernel's default is 100 (cpu.weight).",
	},
	{
		name: "tasksMax", kind: isInteger, unit: "tasks", min: 1, max: maxTasks, example: `4096`,
		at:  func(d *Descriptor) any { return &d.Resources.TasksMax },
		doc: "Processes and threads at one time (pids.max).",
	},
	{
		name: "ioWeight", kind: isInteger, unit: "weight", min: 1, max: 10000, example: `50`,
		at:  func(d *Descriptor) any { return &d.Resources.IOWeight },
		doc: "Share of the disks when they are busy; the kernel's default is 100 (io.weight).",
	},
	{
		name: "optional", kind: isBoolean, def: `false`, example: `true`,
		at:  func(d *Descriptor) any { return &d.Resources.Optional },
		doc: "Start without the limits that can't be applied.",
	},
}

var securityKeys = []key{
	{
		name: "seccomp", kind: isString, enum: []string{SeccompDefault, SeccompOff}, def: `"default"`, example: `"off"`,
		at:  func(d *Descriptor) any { return &d.Security.Seccomp },
		doc: "`default`: a filter denies system calls that containers for development have no use for, see security.md. `off`: there is no filter, as perf, rr, bpf programs and io_uring need it.",
	},
}

var readyKeys = []key{
	{
		name: "notify", kind: isBoolean, def: `true`, example: `false`,
		at:  func(d *Descriptor) any { return &d.Ready.Notify },
		doc: "Wait until init says that it is ready (READY=1, sd_notify(3)).",
	},
	{
		name: "units", kind: isStrings, rule: ruleUnit, def: `[]`, example: `["postgresql.service", "nginx.service"]`,
		at:  func(d *Descriptor) any { return &d.Ready.Units },
		doc: "Units that must be active, with their suffix.",
	},
	{
		name: "timeoutSeconds", kind: isInteger, unit: "seconds", def: `90`, min: 1, max: maxSeconds, example: `300`,
		at:  func(d *Descriptor) any { return &d.Ready.TimeoutSeconds },
		doc: "How long the container may take to be ready.",
	},
}
