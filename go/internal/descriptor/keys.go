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
	ruleUnit      rule = "unit"
	ruleVariable  rule = "variable"
	// ruleCommand: the first word is a file, the others are text.
	ruleCommand rule = "command"
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
}

const (
	mebibyte   = 1 << 20
	maxSeconds = 24 * 60 * 60
	maxIDs     = 1 << 31
	// The kernel's PID_MAX_LIMIT on 64-bit machines (proc_sys_kernel(5)).
	maxTasks = 1 << 22
	maxBytes = math.MaxInt64
	pageSize = 4096
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
		name: "ids", kind: isObject, example: `{ "count": 65536 }`, fields: idsKeys,
		doc: "User and group ids of the container.",
	},
	{
		name: "network", kind: isObject, example: `{ "ports": [{ "host": 8080, "container": 80 }] }`, fields: networkKeys, end: checkNetwork,
		doc: "What the container reaches and what reaches it.",
	},
	{
		name: "resources", kind: isObject, example: `{ "memoryMax": 1073741824 }`, fields: resourcesKeys,
		begin: func(d *Descriptor) { d.Resources = &Resources{} },
		doc:   "Limits of everything in the container together (cgroup v2). A limit whose controller isn't delegated to you is refused at the start, unless `resources.optional`.",
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
		name: "outbound", kind: isBoolean, def: `false`, example: `true`,
		at:  func(d *Descriptor) any { return &d.Network.Outbound },
		doc: "The container reaches what the host reaches.",
	},
	{
		name: "dns", kind: isStrings, rule: ruleText, def: `[]`, example: `["9.9.9.9"]`,
		at:  func(d *Descriptor) any { return &d.Network.DNS },
		doc: "Name servers.",
	},
	{
		name: "hosts", kind: isMap, rule: ruleText, def: `{}`, example: `{ "db.internal": "127.0.0.1" }`,
		at:  func(d *Descriptor) any { return &d.Network.Hosts },
		doc: "Names and their addresses.",
	},
	{
		name: "ports", kind: isObjects, example: `[{ "host": 8080, "container": 80 }]`,
		begin:  func(d *Descriptor) { d.Network.Ports = append(d.Network.Ports, Port{}) },
		fields: portKeys, end: checkPort,
		doc: "Ports of the host relayed to ports of the container. Refused with `network.mode` `host`, where services listen on the host already.",
	},
}

// port returns the element being read.
func (d *Descriptor) port() *Port { return &d.Network.Ports[len(d.Network.Ports)-1] }

var portKeys = []key{
	{
		name: "host", kind: isInteger, required: true, unit: "port", min: 1, max: math.MaxUint16, example: `8080`,
		at:  func(d *Descriptor) any { return &d.port().Host },
		doc: "Port on the host. The same one can stand twice only with another address; `0.0.0.0` is every IPv4 address, `::` every IPv6 address.",
	},
	{
		name: "container", kind: isInteger, required: true, unit: "port", min: 1, max: math.MaxUint16, example: `80`,
		at:  func(d *Descriptor) any { return &d.port().Container },
		doc: "Port in the container.",
	},
	{
		name: "protocol", kind: isString, enum: []string{"tcp"}, def: `"tcp"`, example: `"tcp"`,
		at:  func(d *Descriptor) any { return &d.port().Protocol },
		doc: "`tcp`; `udp` is not supported yet.",
	},
	{
		name: "address", kind: isString, rule: ruleAddress, def: `"127.0.0.1"`, example: `"::1"`,
		at:  func(d *Descriptor) any { return &d.port().Address },
		doc: "Address on the host to listen on, an IPv4 or IPv6 address without a zone.",
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
