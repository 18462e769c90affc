package descriptor

import (
	"bytes"
	"fmt"
	"math"
	"net/netip"
	"path"
	"strings"
	"unicode/utf8"
)

const store = "/nix/store/"

// expected says what a key's value may be.
func (k *key) expected() string {
	switch {
	case k.enum != nil:
		return strings.Join(k.enum, " or ")
	case k.kind == isString:
		return k.rule.expected()
	case k.kind == isBoolean:
		return "true or false"
	case k.kind != isInteger:
		return "an " + string(k.kind)
	case k.min == k.max:
		return fmt.Sprint(k.min)
	case k.max == math.MaxInt64:
		return fmt.Sprintf("an integer, at least %d", k.min)
	}
	return fmt.Sprintf("an integer from %d to %d", k.min, k.max)
}

// expected says what a string may be.
func (r rule) expected() string {
	switch r {
	case ruleName:
		return "a name of at most 63 lower-case letters, digits and dashes, the first no dash"
	case rulePath:
		return "an absolute path"
	case ruleFile:
		return "an absolute path of a program inside the root"
	case ruleStorePath:
		return "a store path, /nix/store/ and one name"
	case ruleDevice:
		return "a device below /dev/"
	case ruleTarget:
		return "an absolute path in the container that isn't the launcher's"
	case ruleSignal:
		return "a signal that init can act upon, such as SIGTERM or SIGRTMIN+3"
	case ruleAddress:
		return "an IPv4 or IPv6 address"
	case ruleHostName:
		return "a host's name in lower case, not localhost"
	case ruleAllow:
		return "an address or a network (10.0.0.0/8, 10.0.0.0/8:443), or a name with a port (example.org:443)"
	case ruleUnit:
		return "a unit's name with its suffix"
	case ruleVariable:
		return "the name of a variable for init, not empty and without ="
	case ruleCredential:
		return "a name of at most 255 printable ASCII characters without / and :"
	case ruleProgram:
		return "a program of the host, an absolute path or a name to be found in PATH"
	case ruleExported:
		return "the name of a variable: letters, digits and _, the first no digit"
	}
	return "a string"
}

// word returns the rule of an array's element.
func (r rule) word(i int) rule {
	switch {
	case !r.isCommand():
		return r
	case i > 0:
		return ruleText
	case r == ruleHostCommand:
		return ruleProgram
	}
	return ruleFile
}

// isCommand tells whether a whole array is one command.
func (r rule) isCommand() bool { return r == ruleCommand || r == ruleHostCommand }

// checkEncoding refuses what the decoder lets through or replaces: raw is the
// string as it stands in the file, s what the decoder made of it.
func checkEncoding(raw []byte, s string) (expected, remedy string) {
	switch {
	case !utf8.Valid(raw):
		return "valid UTF-8", ""
	case strings.IndexByte(s, 0) >= 0:
		return "a string without NUL", ""
	case bytes.Contains(raw, []byte(`\u`)) && strings.ContainsRune(s, utf8.RuneError) && loneSurrogate(raw):
		return "a string of whole characters", `a \ud800 to \udfff stands without its other half`
	}
	return "", ""
}

// loneSurrogate looks for half a surrogate pair among a JSON string's escapes.
func loneSurrogate(raw []byte) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		i++
		if raw[i] != 'u' {
			continue
		}
		switch unit := hex(raw[i+1 : i+5]); {
		case unit >= 0xdc00 && unit < 0xe000:
			return true
		case unit >= 0xd800 && unit < 0xdc00:
			low := raw[i+5:]
			if len(low) < 6 || low[0] != '\\' || low[1] != 'u' {
				return true
			}
			if n := hex(low[2:6]); n < 0xdc00 || n >= 0xe000 {
				return true
			}
			i += 6
		}
		i += 4
	}
	return false
}

// hex reads digits that are known to be hexadecimal.
func hex(digits []byte) (n rune) {
	for _, c := range digits {
		switch {
		case c <= '9':
			n = n<<4 | rune(c-'0')
		default:
			n = n<<4 | rune(c|0x20-'a'+10)
		}
	}
	return n
}

// check refuses a string by what was expected, "" if it is good.
func (k *key) check(s string, r rule) (expected, remedy string) {
	if k.enum != nil {
		for _, v := range k.enum {
			if v == s {
				return "", ""
			}
		}
		if near := Nearest(s, k.enum); near != "" {
			remedy = "did you mean " + near + "?"
		}
		return k.expected(), remedy
	}
	good := true
	switch r {
	case ruleName:
		good = IsName(s)
	case rulePath, ruleFile, ruleStorePath, ruleDevice, ruleTarget:
		good, remedy = checkPath(s, r)
	case ruleSignal:
		good, remedy = checkSignal(s)
	case ruleAddress:
		address, err := netip.ParseAddr(s)
		good = err == nil && address.Zone() == ""
	case ruleHostName:
		good, remedy = checkHostName(s)
	case ruleAllow:
		_, good, remedy = parseAllow(s)
	case ruleUnit:
		good, remedy = checkUnit(s)
	case ruleVariable:
		good, remedy = checkVariable(s)
	case ruleCredential:
		good = isCredential(s)
	case ruleProgram:
		good, remedy = checkProgram(s)
	case ruleExported:
		good, remedy = checkExported(s)
	}
	if good {
		return "", ""
	}
	return r.expected(), remedy
}

// IsName tells whether a container can have a name.
func IsName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c != '-' || i == 0) {
			return false
		}
	}
	return s != "" && len(s) <= 63
}

// maxPath is the kernel's PATH_MAX without its NUL (path_resolution(7)).
const maxPath = 4095

func checkPath(p string, r rule) (good bool, remedy string) {
	switch {
	case p == "":
		return false, ""
	case p[0] != '/':
		return false, "begin it with /"
	case len(p) > maxPath:
		return false, fmt.Sprintf("it is longer than the %d bytes that the kernel takes", maxPath)
	case strings.ContainsFunc(p, func(c rune) bool { return c < ' ' || c == 0x7f }):
		// What says something of it would not be one line, or command a terminal.
		return false, "it has a control character: rename what it names"
	case path.Clean(p) != p:
		return false, "write " + abbreviate(path.Clean(p))
	}
	switch r {
	case ruleFile:
		return p != "/", ""
	case ruleStorePath:
		return isStorePath(p), ""
	case ruleDevice:
		name, found := strings.CutPrefix(p, "/dev/")
		name, _, _ = strings.Cut(name, "/")
		for _, own := range []string{"console", "kmsg", "mqueue", "ptmx", "pts", "shm"} {
			if name == own {
				return false, "/dev/" + own + " is the launcher's"
			}
		}
		return found, ""
	case ruleTarget:
		return checkTarget(p)
	}
	return true, ""
}

// isStorePath takes the characters that Nix has in names.
func isStorePath(p string) bool {
	name, found := strings.CutPrefix(p, store)
	for i := 0; i < len(name); i++ {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("+-._?=", c) < 0 {
			return false
		}
	}
	return found && name != "" && name[0] != '.'
}

// checkTarget keeps mounts off what the launcher mounts itself. /run is among
// it, since a mount there would hide /run/host, init's notify socket in it.
func checkTarget(p string) (good bool, remedy string) {
	if p == "/" {
		return false, "root chooses what is mounted there"
	}
	if p == "/run" {
		return false, "it would hide /run/host, which is the launcher's"
	}
	for _, own := range []string{"/proc", "/sys", "/dev", "/run/host"} {
		if p != own && !strings.HasPrefix(p, own+"/") {
			continue
		}
		if own == "/dev" {
			return false, "/dev is the launcher's; devices brings a device in"
		}
		return false, own + " is the launcher's"
	}
	return true, ""
}

func checkSignal(s string) (good bool, remedy string) {
	if _, err := ParseSignal(s); err == nil {
		// Neither can be caught, so neither asks for anything (signal(7)).
		return s != "SIGKILL" && s != "SIGSTOP", ""
	}
	upper := strings.ToUpper(s)
	for _, meant := range []string{upper, "SIG" + upper} {
		if _, err := ParseSignal(meant); err == nil {
			return false, "write " + meant
		}
	}
	return false, ""
}

// checkUnit knows the names that units can have (systemd.unit(5)).
func checkUnit(s string) (good bool, remedy string) {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte(`:-_.\@`, c) < 0 {
			return false, ""
		}
	}
	if s == "" || len(s) > 255 {
		return false, ""
	}
	dot := strings.LastIndexByte(s, '.')
	switch s[dot+1:] {
	case "service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope":
		return dot > 0, ""
	}
	return false, "write " + abbreviate(s+".service")
}

// checkVariable refuses what the launcher tells init by itself.
func checkVariable(name string) (good bool, remedy string) {
	switch name {
	case "container", "container_uuid", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY":
		return false, "the launcher sets it: remove it"
	}
	return name != "" && !strings.Contains(name, "="), ""
}

// isCredential knows the names that systemd takes: those of files and of file
// descriptors (credential_name_valid in its src/shared/creds-util.c).
func isCredential(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' || s[i] == '/' || s[i] == ':' {
			return false
		}
	}
	return s != "" && s != "." && s != ".." && len(s) <= 255
}

func checkProgram(s string) (good bool, remedy string) {
	if strings.Contains(s, "/") {
		return checkPath(s, ruleFile)
	}
	return s != "" && len(s) <= 255, ""
}

// checkExported takes the names that shells can give (export of POSIX).
func checkExported(s string) (good bool, remedy string) {
	if name, found := strings.CutPrefix(s, "$"); found {
		return false, "write " + abbreviate(name)
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '_' && (c < '0' || c > '9' || i == 0) {
			return false, ""
		}
	}
	return s != "" && len(s) <= 255, ""
}

func checkCredential(r *reader, o *object) {
	var from []*member
	for _, name := range []string{"file", "command", "environment"} {
		if m := o.get(name); m != nil {
			from = append(from, m)
		}
	}
	switch len(from) {
	case 0:
		r.add(o.end-1, Problem{join(r.path, "file"), "missing", "a file, or else command or environment", ""})
	case 1:
	default:
		r.refuseMember(from[1], "nothing, as "+from[0].key.name+" is there", "leave one of the two out")
	}
	name := o.get("name")
	if name == nil || name.bad {
		return
	}
	text := r.d.credential().Name
	if r.credentials[text] {
		r.refuseMember(name, "a name that no other credential has", "remove one of the two")
		return
	}
	if r.credentials == nil {
		r.credentials = map[string]bool{}
	}
	r.credentials[text] = true
}

func checkRoot(r *reader, o *object) {
	root := &r.d.Root
	if !o.good("state") || !o.good("ephemeral") {
		return
	}
	state, ephemeral := o.get("state"), o.get("ephemeral")
	switch {
	case state == nil:
		root.State = !root.Ephemeral
	case ephemeral == nil:
		root.Ephemeral = !root.State
	case root.State == root.Ephemeral:
		r.refuseMember(state, "the opposite of root.ephemeral", "leave one of the two out")
		return
	}
	if m := o.get("sizeBytes"); m != nil && !root.Ephemeral {
		r.refuseMember(m, "it only with root.ephemeral", "leave it out, or set root.ephemeral to true")
	}
}

func checkMount(r *reader, o *object) {
	m := r.d.mount()
	source, size, target := o.get("source"), o.get("sizeBytes"), o.get("target")
	switch {
	case !o.good("kind"):
	case m.Kind == KindTmpfs && source != nil:
		r.refuseMember(source, "no source, as kind is tmpfs", "leave it out, or make kind bind")
	case m.Kind == KindBind && source == nil:
		r.add(o.end-1, Problem{join(r.path, "source"), "missing", "an absolute path, as kind is bind", ""})
	}
	if o.good("kind") && m.Kind == KindBind && size != nil {
		r.refuseMember(size, "no size, as kind is bind", "leave it out, or make kind tmpfs")
	}
	if target == nil || target.bad {
		return
	}
	if r.targets[m.Target] {
		r.refuseMember(target, "a target that no other mount has", "remove one of the two")
		return
	}
	if r.targets == nil {
		r.targets = map[string]bool{}
	}
	r.targets[m.Target] = true
}
