package descriptor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const (
	least = `"version":1,"name":"web","system":{"init":"/sbin/init"}`
	// What problems expect, where several cases share it.
	wantName     = "a name of at most 63 lower-case letters, digits and dashes, the first no dash"
	wantFile     = "an absolute path of a program inside the root"
	wantTarget   = "an absolute path in the container that isn't the launcher's"
	wantStore    = "a store path, /nix/store/ and one name"
	wantDevice   = "a device below /dev/"
	wantSignal   = "a signal that init can act upon, such as SIGTERM or SIGRTMIN+3"
	wantUnit     = "a unit's name with its suffix"
	wantVar      = "the name of a variable for init, not empty and without ="
	wantPort     = "an integer from 1 to 65535"
	wantHostPort = "an integer from 0 to 65535"
	wantOnce     = "a key to stand once in its object"
	oneOfTwo     = "remove one of the two"
	ownDefault   = "leave the key out for its default"
	wantAllow    = "an address or a network (10.0.0.0/8, 10.0.0.0/8:443), or a name with a port (example.org:443)"
	wantHost     = "a host's name in lower case, not localhost"
	wantAddr     = "an IPv4 or IPv6 address"
	asHost       = "nothing, as network.mode is host"
	noWayOut     = "nothing, as network.outbound is false"
	another      = "choose another port, or another address"
	topKeys      = "known are version, name, system, root, mounts, rootOwned, devices, credentials, ids, network, links, dependsOn, restart, watchdogSeconds, resources, security, ready"
)

// with adds members to the least descriptor.
func with(members string) string { return "{" + least + "," + members + "}" }

// system is the least descriptor with members beside system.init.
func system(members string) string {
	return `{"version":1,"name":"web","system":{"init":"/sbin/init",` + members + `}}`
}

// ports is the least descriptor with entries of network.ports.
func ports(entries string) string { return with(`"network":{"ports":[` + entries + `]}`) }

func named(name string) string {
	return `{"version":1,"name":` + name + `,"system":{"init":"/sbin/init"}}`
}

func TestReadRefuses(t *testing.T) {
	tests := []refusal{
		// JSON itself
		{"empty", ``, Problems{{"", "an empty file", "JSON", ""}}},
		{"blanks only", " \n", Problems{{"", "an empty file", "JSON", ""}}},
		{"no JSON", "nonsense", Problems{{"", "line 1, column 2", "JSON", "invalid character 'o' in literal null (expecting 'u')"}}},
		{"broken on line 2", "{\"version\":1,\n  oops}", Problems{{"", "line 2, column 3", "JSON", "invalid character 'o' looking for beginning of object key string"}}},
		{"comma at the end", `{` + least + `,}`, Problems{{"", "line 1, column 58", "JSON", "invalid character '}' looking for beginning of object key string"}}},
		{"too short", `{` + least, Problems{{"", "line 1, column 57", "JSON", "the file ends too early"}}},
		{"byte order mark", "\ufeff{}", Problems{{"", "line 1, column 1", "JSON", "remove the byte order mark"}}},
		{"control character in a string", named("\"a\x01\""), Problems{{"", "line 1, column 23", "JSON", `invalid character '\x01' in string literal`}}},
		{"deeper than the decoder goes", with(`"x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000)), Problems{{"", "line 1, column 10061", "JSON", "invalid character '[' exceeded max depth"}}},
		{"deep", with(`"x":` + strings.Repeat(`{"a":[`, 4000) + strings.Repeat("]}", 4000)), Problems{{"x", strings.Repeat(`{"a":[`, 10)[:59] + "…", "a known key", topKeys}}},
		{"trailing object", `{` + least + `} {}`, Problems{{"", "{}", "nothing after the descriptor's closing brace", ""}}},
		{"trailing text", `{` + least + "}\n# the end", Problems{{"", "# the end", "nothing after the descriptor's closing brace", ""}}},
		{"array", `[1]`, Problems{{"", "[1]", "an object", ""}}},
		{"null", `null`, Problems{{"", "null", "an object", ""}}},

		// Keys
		{"unknown key", with(`"colour":"red"`), Problems{{"colour", `"red"`, "a known key", topKeys}}},
		{"unknown key that is close", with(`"moutns":[]`), Problems{{"moutns", "[]", "a known key", "did you mean mounts?"}}},
		{"unknown key in an object", with(`"network":{"mod":"host"}`), Problems{{"network.mod", `"host"`, "a known key", "did you mean mode?"}}},
		{"unknown key in an array", ports(`{"host":1,"container":1,"adress":"::1"}`), Problems{{"network.ports[0].adress", `"::1"`, "a known key", "did you mean address?"}}},
		{"key in another case", with(`"Ids":{"count":1}`), Problems{{"Ids", `{"count":1}`, "a known key", "did you mean ids?"}}},
		{"key that needs quotes", with(`"a.b":1`), Problems{{`["a.b"]`, "1", "a known key", topKeys}}},
		{"key without a character", with(`"":1`), Problems{{`[""]`, "1", "a known key", topKeys}}},
		{"key with an escape sequence", with(`"\u001b[2J":1`), Problems{{`["\u001b[2J"]`, "1", "a known key", topKeys}}},
		{"key twice", with(`"name":"web"`), Problems{{"name", `"web"`, wantOnce, oneOfTwo}}},
		{"key twice, once escaped", with(`"n\u0061me":"web"`), Problems{{"name", `"web"`, wantOnce, oneOfTwo}}},
		{"key twice in depth", system(`"stop":{"signal":"SIGTERM","signal":"SIGINT"}`), Problems{{"system.stop.signal", `"SIGINT"`, wantOnce, oneOfTwo}}},
		{"key twice in an array", ports(`{"host":1,"host":2,"container":1}`), Problems{{"network.ports[0].host", "2", wantOnce, oneOfTwo}}},
		{"variable twice", system(`"environment":{"A":"1","A":"1"}`), Problems{{"system.environment.A", `"1"`, wantOnce, oneOfTwo}}},
		{"object twice", with(`"ids":{},"ids":{"count":1}`), Problems{{"ids", `{"count":1}`, wantOnce, oneOfTwo}}},

		// Types
		{"string for an integer", with(`"ids":{"count":"many"}`), Problems{{"ids.count", `"many"`, "an integer from 1 to 2147483648", ""}}},
		{"fraction", with(`"ids":{"count":1.5}`), Problems{{"ids.count", "1.5", "an integer from 1 to 2147483648", ""}}},
		{"whole fraction", with(`"ids":{"count":1.0}`), Problems{{"ids.count", "1.0", "an integer from 1 to 2147483648", ""}}},
		{"exponent", with(`"ids":{"count":1e3}`), Problems{{"ids.count", "1e3", "an integer from 1 to 2147483648", ""}}},
		{"more than 64 bits", with(`"resources":{"memoryMax":9223372036854775808}`), Problems{{"resources.memoryMax", "9223372036854775808", "an integer, at least 1048576", ""}}},
		{"integer for a string", named("5"), Problems{{"name", "5", wantName, ""}}},
		{"string for a boolean", with(`"ready":{"notify":"yes"}`), Problems{{"ready.notify", `"yes"`, "true or false", ""}}},
		{"null for a boolean", with(`"ready":{"notify":null}`), Problems{{"ready.notify", "null", "true or false", ownDefault}}},
		{"null for an object", with(`"network":null`), Problems{{"network", "null", "an object", ownDefault}}},
		{"null for what is required", named("null"), Problems{{"name", "null", wantName, ""}}},
		{"null in an array", with(`"devices":[null]`), Problems{{"devices[0]", "null", "a string", ""}}},
		{"array for an object", with(`"ids":[1]`), Problems{{"ids", "[1]", "an object", ""}}},
		{"object for an array", with(`"mounts":{"a":{}}`), Problems{{"mounts", `{"a":{}}`, "an array of objects", ""}}},
		{"string for an array", with(`"devices":"/dev/fuse"`), Problems{{"devices", `"/dev/fuse"`, "an array of strings", ""}}},
		{"string in an array of objects", with(`"mounts":["/srv"]`), Problems{{"mounts[0]", `"/srv"`, "an object", ""}}},
		{"object in an array of strings", with(`"devices":[{"a":1}]`), Problems{{"devices[0]", `{"a":1}`, "a string", ""}}},
		{"array for a map", system(`"environment":["A=1"]`), Problems{{"system.environment", `["A=1"]`, "an object of strings", ""}}},
		{"number in a map", system(`"environment":{"A":[1]}`), Problems{{"system.environment.A", "[1]", "a string", ""}}},

		// Strings
		{"invalid UTF-8", system("\"arguments\":[\"a\xff\"]"), Problems{{"system.arguments[0]", `"a\xff"`, "valid UTF-8", ""}}},
		{"invalid UTF-8 in a variable's name", system("\"environment\":{\"a\xff\":\"\"}"), Problems{{`system.environment["a�"]`, `"a\xff"`, "valid UTF-8", ""}}},
		{"half a surrogate pair", system(`"arguments":["\ud83d"]`), Problems{{"system.arguments[0]", `"\ud83d"`, "a string of whole characters", `a \ud800 to \udfff stands without its other half`}}},
		{"second half only", system(`"arguments":["\\\udE00"]`), Problems{{"system.arguments[0]", `"\\\udE00"`, "a string of whole characters", `a \ud800 to \udfff stands without its other half`}}},
		{"first half twice", system(`"arguments":["\ud83d\ud83d"]`), Problems{{"system.arguments[0]", `"\ud83d\ud83d"`, "a string of whole characters", `a \ud800 to \udfff stands without its other half`}}},
		{"NUL", system(`"arguments":["a\u0000b"]`), Problems{{"system.arguments[0]", `"a\u0000b"`, "a string without NUL", ""}}},
		{"NUL in a path", `{"version":1,"name":"web","system":{"init":"/sbin\u0000/init"}}`, Problems{{"system.init", `"/sbin\u0000/init"`, "a string without NUL", ""}}},
		{"NUL in a variable", system(`"environment":{"A":"\u0000"}`), Problems{{"system.environment.A", `"\u0000"`, "a string without NUL", ""}}},
		{"NUL in a variable's name", system(`"environment":{"A\u0000":""}`), Problems{{`system.environment["A\u0000"]`, `"A\u0000"`, "a string without NUL", ""}}},

		// Required
		{"nothing", `{}`, Problems{{"version", "missing", "1", ""}, {"name", "missing", wantName, ""}, {"system.init", "missing", wantFile, ""}}},
		{"no init", `{"version":1,"name":"web","system":{}}`, Problems{{"system.init", "missing", wantFile, ""}}},
		{"port without numbers", ports(`{}`), Problems{{"network.ports[0].host", "missing", wantHostPort, ""}, {"network.ports[0].container", "missing", wantPort, ""}}},
		{"mount without a target", with(`"mounts":[{"source":"/a"}]`), Problems{{"mounts[0].target", "missing", wantTarget, ""}}},

		// version and name
		{"newer version", `{"version":2,"name":"web","system":{"init":"/i"}}`, Problems{{"version", "2", "1", "it was made by a newer nuc: upgrade nuc"}}},
		{"version 0", `{"version":0,"name":"web","system":{"init":"/i"}}`, Problems{{"version", "0", "1", ""}}},
		{"empty name", named(`""`), Problems{{"name", `""`, wantName, ""}}},
		{"name with a path", named(`"../x"`), Problems{{"name", `"../x"`, wantName, ""}}},
		{"name with a dash first", named(`"-x"`), Problems{{"name", `"-x"`, wantName, ""}}},
		{"name with a capital", named(`"Web"`), Problems{{"name", `"Web"`, wantName, ""}}},
		{"name with an underscore", named(`"a_b"`), Problems{{"name", `"a_b"`, wantName, ""}}},
		{"name of 64", named(`"` + strings.Repeat("a", 64) + `"`), Problems{{"name", `"` + strings.Repeat("a", 58) + "…", wantName, ""}}},

		// Paths
		{"relative init", `{"version":1,"name":"web","system":{"init":"sbin/init"}}`, Problems{{"system.init", `"sbin/init"`, wantFile, "begin it with /"}}},
		{"empty init", `{"version":1,"name":"web","system":{"init":""}}`, Problems{{"system.init", `""`, wantFile, ""}}},
		{"init is the root", `{"version":1,"name":"web","system":{"init":"/"}}`, Problems{{"system.init", `"/"`, wantFile, ""}}},
		{"relative tree", with(`"root":{"tree":"debian"}`), Problems{{"root.tree", `"debian"`, "an absolute path", "begin it with /"}}},
		{"dots in a path", with(`"root":{"tree":"/srv/../etc"}`), Problems{{"root.tree", `"/srv/../etc"`, "an absolute path", "write /etc"}}},
		{"slash at the end", with(`"root":{"tree":"/srv/"}`), Problems{{"root.tree", `"/srv/"`, "an absolute path", "write /srv"}}},
		{"line end in a path", with(`"root":{"tree":"/a\nb"}`), Problems{{"root.tree", `"/a\nb"`, "an absolute path", "it has a control character: rename what it names"}}},
		{"long path", with(`"root":{"tree":"/` + strings.Repeat("a", 4095) + `"}`), Problems{{"root.tree", `"/` + strings.Repeat("a", 57) + "…", "an absolute path", "it is longer than the 4095 bytes that the kernel takes"}}},
		{"toplevel elsewhere", system(`"toplevel":"/srv/system"`), Problems{{"system.toplevel", `"/srv/system"`, wantStore, ""}}},
		{"toplevel is the store", system(`"toplevel":"/nix/store"`), Problems{{"system.toplevel", `"/nix/store"`, wantStore, ""}}},
		{"toplevel below a store path", system(`"toplevel":"/nix/store/a/b"`), Problems{{"system.toplevel", `"/nix/store/a/b"`, wantStore, ""}}},
		{"toplevel with a space", system(`"toplevel":"/nix/store/a b"`), Problems{{"system.toplevel", `"/nix/store/a b"`, wantStore, ""}}},
		{"rootOwned elsewhere", with(`"rootOwned":["/nix/store/a","/usr"]`), Problems{{"rootOwned[1]", `"/usr"`, wantStore, ""}}},
		{"rootOwned with dots", with(`"rootOwned":["/nix/store/../.."]`), Problems{{"rootOwned[0]", `"/nix/store/../.."`, wantStore, "write /"}}},
		{"device elsewhere", with(`"devices":["/etc/passwd"]`), Problems{{"devices[0]", `"/etc/passwd"`, wantDevice, ""}}},
		{"device through dots", with(`"devices":["/dev/../etc/passwd"]`), Problems{{"devices[0]", `"/dev/../etc/passwd"`, wantDevice, "write /etc/passwd"}}},
		{"device of the launcher", with(`"devices":["/dev/pts/0"]`), Problems{{"devices[0]", `"/dev/pts/0"`, wantDevice, "/dev/pts is the launcher's"}}},
		{"relative switch", system(`"switch":["switch"]`), Problems{{"system.switch[0]", `"switch"`, wantFile, "begin it with /"}}},
		{"switch without a word", system(`"switch":[]`), Problems{{"system.switch", "[]", "a command", "leave the key out if there is none"}}},

		// system
		{"variable with =", system(`"environment":{"A=B":"1"}`), Problems{{`system.environment["A=B"]`, `"A=B"`, wantVar, ""}}},
		{"variable without a name", system(`"environment":{"":"1"}`), Problems{{`system.environment[""]`, `""`, wantVar, ""}}},
		{"container", system(`"environment":{"container":"x"}`), Problems{{"system.environment.container", `"container"`, wantVar, "the launcher sets it: remove it"}}},
		{"container_uuid", system(`"environment":{"container_uuid":"x"}`), Problems{{"system.environment.container_uuid", `"container_uuid"`, wantVar, "the launcher sets it: remove it"}}},
		{"NOTIFY_SOCKET", system(`"environment":{"NOTIFY_SOCKET":"x"}`), Problems{{"system.environment.NOTIFY_SOCKET", `"NOTIFY_SOCKET"`, wantVar, "the launcher sets it: remove it"}}},
		{"CREDENTIALS_DIRECTORY", system(`"environment":{"CREDENTIALS_DIRECTORY":"x"}`), Problems{{"system.environment.CREDENTIALS_DIRECTORY", `"CREDENTIALS_DIRECTORY"`, wantVar, "the launcher sets it: remove it"}}},
		{"negative gid", system(`"ttyGroup":-1`), Problems{{"system.ttyGroup", "-1", "an integer from 0 to 2147483647", ""}}},
		{"unknown signal", system(`"stop":{"signal":"SIGNO"}`), Problems{{"system.stop.signal", `"SIGNO"`, wantSignal, ""}}},
		{"short signal", system(`"stop":{"signal":"term"}`), Problems{{"system.stop.signal", `"term"`, wantSignal, "write SIGTERM"}}},
		{"SIGKILL", system(`"stop":{"signal":"SIGKILL"}`), Problems{{"system.stop.signal", `"SIGKILL"`, wantSignal, ""}}},
		{"SIGSTOP", system(`"stop":{"signal":"SIGSTOP"}`), Problems{{"system.stop.signal", `"SIGSTOP"`, wantSignal, ""}}},
		{"real-time signal 31", system(`"stop":{"signal":"SIGRTMIN+31"}`), Problems{{"system.stop.signal", `"SIGRTMIN+31"`, wantSignal, ""}}},
		{"no time to stop", system(`"stop":{"timeoutSeconds":0}`), Problems{{"system.stop.timeoutSeconds", "0", "an integer from 1 to 86400", ""}}},

		// root
		{"state and ephemeral", with(`"root":{"state":true,"ephemeral":true}`), Problems{{"root.state", "true", "the opposite of root.ephemeral", "leave one of the two out"}}},
		{"neither state nor ephemeral", with(`"root":{"ephemeral":false,"state":false}`), Problems{{"root.state", "false", "the opposite of root.ephemeral", "leave one of the two out"}}},
		{"size of a state folder", with(`"root":{"sizeBytes":4096}`), Problems{{"root.sizeBytes", "4096", "it only with root.ephemeral", "leave it out, or set root.ephemeral to true"}}},
		{"size below a page", with(`"root":{"ephemeral":true,"sizeBytes":4095}`), Problems{{"root.sizeBytes", "4095", "an integer, at least 4096", ""}}},

		// mounts
		{"mount kind", with(`"mounts":[{"kind":"nfs","target":"/mnt"}]`), Problems{{"mounts[0].kind", `"nfs"`, "bind or tmpfs", ""}}},
		{"mount kind that is close", with(`"mounts":[{"kind":"tmpf","target":"/mnt"}]`), Problems{{"mounts[0].kind", `"tmpf"`, "bind or tmpfs", "did you mean tmpfs?"}}},
		{"bind without a source", with(`"mounts":[{"kind":"bind","target":"/mnt"}]`), Problems{{"mounts[0].source", "missing", "an absolute path, as kind is bind", ""}}},
		{"default kind without a source", with(`"mounts":[{"target":"/mnt"}]`), Problems{{"mounts[0].source", "missing", "an absolute path, as kind is bind", ""}}},
		{"tmpfs with a source", with(`"mounts":[{"source":"/a","target":"/mnt","kind":"tmpfs"}]`), Problems{{"mounts[0].source", `"/a"`, "no source, as kind is tmpfs", "leave it out, or make kind bind"}}},
		{"bind with a size", with(`"mounts":[{"source":"/a","target":"/mnt","sizeBytes":4096}]`), Problems{{"mounts[0].sizeBytes", "4096", "no size, as kind is bind", "leave it out, or make kind tmpfs"}}},
		{"relative source", with(`"mounts":[{"source":"a","target":"/mnt"}]`), Problems{{"mounts[0].source", `"a"`, "an absolute path", "begin it with /"}}},
		{"relative target", with(`"mounts":[{"kind":"tmpfs","target":"mnt"}]`), Problems{{"mounts[0].target", `"mnt"`, wantTarget, "begin it with /"}}},
		{"target out of the root", with(`"mounts":[{"kind":"tmpfs","target":"/../etc"}]`), Problems{{"mounts[0].target", `"/../etc"`, wantTarget, "write /etc"}}},
		{"target /", with(`"mounts":[{"kind":"tmpfs","target":"/"}]`), Problems{{"mounts[0].target", `"/"`, wantTarget, "root chooses what is mounted there"}}},
		{"target /proc", with(`"mounts":[{"kind":"tmpfs","target":"/proc"}]`), Problems{{"mounts[0].target", `"/proc"`, wantTarget, "/proc is the launcher's"}}},
		{"target below /sys", with(`"mounts":[{"kind":"tmpfs","target":"/sys/fs/bpf"}]`), Problems{{"mounts[0].target", `"/sys/fs/bpf"`, wantTarget, "/sys is the launcher's"}}},
		{"target below /dev", with(`"mounts":[{"kind":"tmpfs","target":"/dev/fuse"}]`), Problems{{"mounts[0].target", `"/dev/fuse"`, wantTarget, "/dev is the launcher's; devices brings a device in"}}},
		{"target /run", with(`"mounts":[{"kind":"tmpfs","target":"/run"}]`), Problems{{"mounts[0].target", `"/run"`, wantTarget, "it would hide /run/host, which is the launcher's"}}},
		{"target below /run/host", with(`"mounts":[{"kind":"tmpfs","target":"/run/host/a"}]`), Problems{{"mounts[0].target", `"/run/host/a"`, wantTarget, "/run/host is the launcher's"}}},
		{"target twice", with(`"mounts":[{"kind":"tmpfs","target":"/a"},{"source":"/b","target":"/a"}]`), Problems{{"mounts[1].target", `"/a"`, "a target that no other mount has", oneOfTwo}}},

		// ids, network, ports
		{"no ids", with(`"ids":{"count":0}`), Problems{{"ids.count", "0", "an integer from 1 to 2147483648", ""}}},
		{"network mode", with(`"network":{"mode":"bridge"}`), Problems{{"network.mode", `"bridge"`, "private or host", ""}}},
		{"other protocol", ports(`{"host":53,"container":53,"protocol":"sctp"}`), Problems{{"network.ports[0].protocol", `"sctp"`, "tcp or udp", "did you mean tcp?"}}},
		{"host port 65536", ports(`{"host":65536,"container":53}`), Problems{{"network.ports[0].host", "65536", wantHostPort, ""}}},
		{"container port -1", ports(`{"host":53,"container":-1}`), Problems{{"network.ports[0].container", "-1", wantPort, ""}}},
		{"address is a name", ports(`{"host":53,"container":53,"address":"localhost"}`), Problems{{"network.ports[0].address", `"localhost"`, "an IPv4 or IPv6 address", ""}}},
		{"address with a zone", ports(`{"host":53,"container":53,"address":"fe80::1%eth0"}`), Problems{{"network.ports[0].address", `"fe80::1%eth0"`, "an IPv4 or IPv6 address", ""}}},
		{"port twice", ports(`{"host":80,"container":1},{"host":80,"container":2,"address":"127.0.0.1"}`), Problems{{"network.ports[1].host", "80", "a port that is declared once at 127.0.0.1", "choose another port, or another address"}}},
		{"port twice, addresses written in two ways", ports(`{"host":80,"container":1,"address":"::1"},{"host":80,"container":2,"address":"0:0:0:0:0:0:0:1"}`), Problems{{"network.ports[1].host", "80", "a port that is declared once at 0:0:0:0:0:0:0:1", "choose another port, or another address"}}},
		{"port twice, IPv4 within IPv6", ports(`{"host":80,"container":1},{"host":80,"container":2,"address":"::ffff:127.0.0.1"}`), Problems{{"network.ports[1].host", "80", "a port that is declared once at ::ffff:127.0.0.1", "choose another port, or another address"}}},
		{"every IPv4 address, then one", ports(`{"host":80,"container":1,"address":"0.0.0.0"},{"host":80,"container":2}`), Problems{{"network.ports[1].host", "80", "a port that is declared once at 127.0.0.1", "0.0.0.0 is every address: choose another port, or another address"}}},
		{"one IPv6 address, then every", ports(`{"host":80,"container":1,"address":"::1"},{"host":80,"container":2,"address":"::"}`), Problems{{"network.ports[1].host", "80", "a port that is declared once at ::", ":: is every address: choose another port, or another address"}}},
		{"ports with the host's network", with(`"network":{"ports":[{"host":1,"container":1}],"mode":"host"}`), Problems{{"network.ports", `[{"host":1,"container":1}]`, "no ports, as network.mode is host", "leave them out: the services listen on the host already"}}},

		// resources and ready
		{"negative memory", with(`"resources":{"memoryMax":-1}`), Problems{{"resources.memoryMax", "-1", "an integer, at least 1048576", ""}}},
		{"memory below 1 MiB", with(`"resources":{"memoryHigh":1048575}`), Problems{{"resources.memoryHigh", "1048575", "an integer, at least 1048576", ""}}},
		{"no CPU", with(`"resources":{"cpuQuotaPercent":0}`), Problems{{"resources.cpuQuotaPercent", "0", "an integer from 1 to 1000000", ""}}},
		{"CPU weight", with(`"resources":{"cpuWeight":10001}`), Problems{{"resources.cpuWeight", "10001", "an integer from 1 to 10000", ""}}},
		{"IO weight", with(`"resources":{"ioWeight":0}`), Problems{{"resources.ioWeight", "0", "an integer from 1 to 10000", ""}}},
		{"no tasks", with(`"resources":{"tasksMax":0}`), Problems{{"resources.tasksMax", "0", "an integer from 1 to 4194304", ""}}},
		{"unit without a suffix", with(`"ready":{"units":["a.service","postgresql"]}`), Problems{{"ready.units[1]", `"postgresql"`, wantUnit, "write postgresql.service"}}},
		{"unit with an unknown suffix", with(`"ready":{"units":["a.b"]}`), Problems{{"ready.units[0]", `"a.b"`, wantUnit, "write a.b.service"}}},
		{"unit with a space", with(`"ready":{"units":["a b.service"]}`), Problems{{"ready.units[0]", `"a b.service"`, wantUnit, ""}}},
		{"suffix only", with(`"ready":{"units":[".service"]}`), Problems{{"ready.units[0]", `".service"`, wantUnit, ""}}},
		{"no time to be ready", with(`"ready":{"timeoutSeconds":86401}`), Problems{{"ready.timeoutSeconds", "86401", "an integer from 1 to 86400", ""}}},
	}
	refuses(t, tests)
}

// refusal is a descriptor and all that is said of it.
type refusal struct {
	name    string
	content string
	want    Problems
}

func refuses(t *testing.T, tests []refusal) {
	t.Helper()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d, err := Read([]byte(test.content))
			var problems Problems
			if !errors.As(err, &problems) || d != nil {
				t.Fatalf("got %+v, %v, want problems", d, err)
			}
			if diff := cmp.Diff(test.want, problems); diff != "" {
				t.Errorf("want (-) got (+):\n%s", diff)
			}
		})
	}
}

// TestProblemsComeInOrder: all of them, in the order of the file, whatever
// check finds them.
func TestProblemsComeInOrder(t *testing.T) {
	_, err := Read([]byte(`{
		"ready": {"units": ["x"]},
		"network": {"ports": [{"host": -1}], "mode": "host", "mtu": 1500},
		"root": {"sizeBytes": 4096, "tree": "x"},
		"version": 7,
		"mounts": [{"sizeBytes": 4096, "target": "/a"}, 5],
		"system": {"Init": "/i"}
	} x`))
	want := []string{
		"ready.units[0]", "network.ports", "network.ports[0].host", "network.ports[0].container", "network.mtu",
		"root.sizeBytes", "root.tree", "version", "mounts[0].sizeBytes", "mounts[0].source", "mounts[1]",
		"system.Init", "system.init", "name", "",
	}
	var problems Problems
	if !errors.As(err, &problems) {
		t.Fatal(err)
	}
	var got []string
	for _, p := range problems {
		got = append(got, p.Path)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("want (-) got (+):\n%s\n%v", diff, err)
	}
	if lines := strings.Split(err.Error(), "\n"); len(lines) != len(want) {
		t.Errorf("%d lines for %d problems", len(lines), len(want))
	}
}

func TestProblemsAreBounded(t *testing.T) {
	_, err := Read([]byte(with(`"devices":[` + strings.Repeat("0,", 100_000) + `0]`)))
	var problems Problems
	if !errors.As(err, &problems) || len(problems) != maxProblems+1 {
		t.Fatalf("%d problems, want %d and one for the others", len(problems), maxProblems)
	}
	if got, want := problems[maxProblems].Value, "99001 more problems"; got != want {
		t.Errorf("the last is %q, want %q", got, want)
	}
}

func TestReadIsLinear(t *testing.T) {
	entries := func(format string) string {
		var all []string
		for i := range 30_000 {
			all = append(all, fmt.Sprintf(format, i, i%250+1))
		}
		return strings.Join(all, ",")
	}
	for name, content := range map[string]string{
		"ports":     ports(entries(`{"host":%d,"container":80,"address":"127.0.0.%d"}`)),
		"ranges":    ports(entries(`{"host":%d,"container":80,"count":%d}`)),
		"links":     with(`"links":[` + entries(`{"listen":%d,"to":"db-%d"}`) + `]`),
		"mounts":    with(`"mounts":[` + entries(`{"kind":"tmpfs","target":"/%d/%d"}`) + `]`),
		"variables": system(`"environment":{` + entries(`"A%d":"%d"`) + `}`),
		"unknown":   with(`"ids":{` + entries(`"a%d":%d`) + `}`),
	} {
		before := cpuTime(t)
		_, _ = Read([]byte(content))
		// It is below 0.2 s; comparing each with each takes many seconds.
		if took := cpuTime(t) - before; took > 3*time.Second {
			t.Errorf("30,000 %s take %s of processor time", name, took)
		}
	}
}

// cpuTime is what the calling thread has used, however busy the machine is.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	runtime.LockOSThread() // for the rest of the test
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func TestReadFillsDefaults(t *testing.T) {
	base := func() *Descriptor {
		return &Descriptor{
			Version: 1, Name: "web",
			System:  System{Init: "/sbin/init", TTYGroup: 5, Stop: Stop{Signal: "SIGRTMIN+3", TimeoutSeconds: 30}},
			Root:    Root{State: true},
			IDs:     IDs{Count: 65536},
			Network: Network{Mode: NetworkPrivate, Outbound: true},
			Restart: RestartNo, Security: Security{Seccomp: SeccompDefault},
			Ready: Ready{Notify: true, TimeoutSeconds: 90},
		}
	}
	tests := []struct {
		name    string
		content string
		change  func(d *Descriptor)
	}{
		{"nothing said", `{` + least + `}`, func(*Descriptor) {}},
		{"empty sections", with(`"root":{},"mounts":[],"rootOwned":[],"devices":[],"ids":{},"network":{"ports":[]},"ready":{"units":[]}`), func(*Descriptor) {}},
		{"empty resources", with(`"resources":{}`), func(d *Descriptor) { d.Resources = &Resources{} }},
		{"no filter", with(`"security":{"seccomp":"off"}`), func(d *Descriptor) { d.Security.Seccomp = SeccompOff }},
		{"part of a section", system(`"stop":{"timeoutSeconds":5}`), func(d *Descriptor) { d.System.Stop.TimeoutSeconds = 5 }},
		{"zero and false", with(`"ready":{"notify":false}`), func(d *Descriptor) { d.Ready.Notify = false }},
		{"zero gid", system(`"ttyGroup":0`), func(d *Descriptor) { d.System.TTYGroup = 0 }},
		{"ephemeral", with(`"root":{"ephemeral":true}`), func(d *Descriptor) { d.Root = Root{Ephemeral: true} }},
		{"no state", with(`"root":{"state":false}`), func(d *Descriptor) { d.Root = Root{Ephemeral: true} }},
		{"port", ports(`{"host":1,"container":2}`), func(d *Descriptor) {
			d.Network.Ports = []Port{{Host: 1, Container: 2, Count: 1, Protocol: TCP, Address: "127.0.0.1"}}
		}},
		{"ports of both families", ports(`{"host":1,"container":2,"address":"0.0.0.0"},{"host":1,"container":2,"address":"::"}`), func(d *Descriptor) {
			d.Network.Ports = []Port{
				{Host: 1, Container: 2, Count: 1, Protocol: TCP, Address: "0.0.0.0"},
				{Host: 1, Container: 2, Count: 1, Protocol: TCP, Address: "::"},
			}
		}},
		{"mount", with(`"mounts":[{"source":"/a","target":"/b"}]`), func(d *Descriptor) {
			d.Mounts = []Mount{{Kind: KindBind, Source: "/a", Target: "/b"}}
		}},
		{"pair of surrogates", system(`"arguments":["\ud83d\ude00\ufffd"]`), func(d *Descriptor) { d.System.Arguments = []string{"😀\ufffd"} }},
		{"no way out", with(`"network":{"outbound":false}`), func(d *Descriptor) { d.Network.Outbound = false }},
		{"the host's network", with(`"network":{"mode":"host","dns":["::1"]}`), func(d *Descriptor) {
			d.Network = Network{Mode: NetworkHost, DNS: []string{"::1"}}
		}},
		{"link", with(`"links":[{"listen":1,"to":"db"},{"listen":1,"to":"cache","port":2,"protocol":"udp","count":3,"address":"::1"}]`), func(d *Descriptor) {
			d.Links = []Link{
				{Listen: 1, To: "db", Port: 1, Count: 1, Protocol: TCP},
				{Listen: 1, To: "cache", Port: 2, Count: 3, Protocol: UDP, Address: "::1"},
			}
		}},
		{"ports that the kernel chooses", ports(`{"host":0,"container":1},{"host":0,"container":1},{"host":0,"container":2,"count":9}`), func(d *Descriptor) {
			one := Port{Container: 1, Count: 1, Protocol: TCP, Address: "127.0.0.1"}
			d.Network.Ports = []Port{one, one, {Container: 2, Count: 9, Protocol: TCP, Address: "127.0.0.1"}}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := Read([]byte(test.content))
			if err != nil {
				t.Fatal(err)
			}
			want := base()
			test.change(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("want (-) got (+):\n%s", diff)
			}
			again, err := Read(got.Marshal())
			if err != nil {
				t.Fatalf("what Marshal wrote: %v", err)
			}
			if diff := cmp.Diff(got, again); diff != "" {
				t.Errorf("before (-) and after (+) Marshal:\n%s", diff)
			}
		})
	}
}

func TestMarshalIsCanonical(t *testing.T) {
	var written []string
	for _, content := range []string{
		system(`"environment":{"B":"<&>","A":"2"}`),
		`{"system":{"environment":{"A":"2","B":"<&>"},"init":"/sbin/init","ttyGroup":5},"name":"web","version":1,"devices":[]}`,
	} {
		d, err := Read([]byte(content))
		if err != nil {
			t.Fatal(err)
		}
		written = append(written, string(d.Marshal()))
	}
	if written[0] != written[1] {
		t.Errorf("two ways to say the same are written differently:\n%s", cmp.Diff(written[0], written[1]))
	}
	if !strings.Contains(written[0], "\n  \"system\": {\n") || !strings.Contains(written[0], `"<&>"`) || !strings.HasSuffix(written[0], "}\n") {
		t.Errorf("not indented, with HTML's escapes, or without a newline at the end:\n%s", written[0])
	}
}

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, content string) {
		if err := os.WriteFile(at(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	whole := "{" + least + "}"
	write("good", whole+"\n")
	write("bad", "{}")
	write("at the limit", whole+strings.Repeat(" ", MaxSize-len(whole)))
	write("over the limit", whole+strings.Repeat(" ", MaxSize-len(whole)+1))
	write("sparse", "")
	if err := os.Truncate(at("sparse"), 1<<40); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(at("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tests := []struct{ path, want string }{
		{at("good"), ""},
		{at("at the limit"), ""},
		{at("bad"), "version: missing"},
		{at("over the limit"), "more than 4 MiB: expected a descriptor of at most 4 MiB"},
		{at("sparse"), "more than 4 MiB: expected a descriptor of at most 4 MiB"},
		{at("none"), "no such file or directory"},
		{at("fifo"), "no regular file: write the descriptor to one"},
		{at("socket"), "no regular file: write the descriptor to one"},
		{dir, "is a folder: name the descriptor's file in it"},
		{"/dev/zero", "no regular file: write the descriptor to one"},
	}
	for _, test := range tests {
		t.Run(filepath.Base(test.path), func(t *testing.T) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				d, data, err := ReadFile(test.path)
				if test.want == "" {
					if err != nil || d.Name != "web" || !strings.HasPrefix(string(data), whole) {
						t.Errorf("got %+v, %d bytes, %v", d, len(data), err)
					}
				} else if err == nil || !strings.HasPrefix(err.Error(), test.want) || d != nil {
					t.Errorf("got %+v, %v, want %s", d, err, test.want)
				}
			}()
			select {
			case <-done:
			case <-time.After(10 * time.Second):
				t.Fatal("hangs")
			}
		})
	}
}

// FuzzRead: no panic, problems fit for a terminal, and what was read can be
// written and read again.
func FuzzRead(f *testing.F) {
	for _, folder := range []string{"good", "bad", "beyond-schema"} {
		files, err := filepath.Glob(filepath.Join("testdata", folder, "*.json"))
		if err != nil || files == nil {
			f.Fatalf("%s: no seeds, %v", folder, err)
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(content)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := Read(data)
		if err != nil {
			var problems Problems
			if !errors.As(err, &problems) || len(problems) == 0 || d != nil {
				t.Fatalf("got %+v, %v", d, err)
			}
			for _, p := range problems {
				if utf8.RuneCountInString(p.Value) > maxValue || p.Value == "" || p.Expected == "" {
					t.Errorf("problem %+q", p)
				}
				line := p.String()
				if strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) || len(line) > 2000 {
					t.Errorf("line %q", line)
				}
			}
			return
		}
		again, err := Read(d.Marshal())
		if err != nil {
			t.Fatalf("Marshal writes what Read refuses: %v", err)
		}
		if diff := cmp.Diff(d, again); diff != "" {
			t.Errorf("before (-) and after (+) Marshal:\n%s", diff)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	content, err := os.ReadFile("testdata/good/nixos.json")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(content); err != nil {
			b.Fatal(err)
		}
	}
}
