package descriptor

import (
	"strings"
	"syscall"
	"testing"
)

func TestParseSignal(t *testing.T) {
	tests := []struct {
		name string
		want syscall.Signal // 0 is an error
	}{
		{"SIGTERM", 15},
		{"SIGHUP", 1},
		{"SIGKILL", 9},
		{"SIGPWR", 30},
		{"SIGRTMIN", 34},
		{"SIGRTMIN+0", 34},
		{"SIGRTMIN+3", 37},
		{"SIGRTMIN+15", 49},
		{"SIGRTMIN+30", 64},
		{"SIGRTMIN+31", 0},
		{"SIGRTMIN+", 0},
		{"SIGRTMIN+03", 0},
		{"SIGRTMIN3", 0},
		{"SIGRTMIN-1", 0},
		{"SIGRTMIN++3", 0},
		{"SIGRTMIN+3 ", 0},
		{"TERM", 0},
		{"sigterm", 0},
		{"15", 0},
		{"", 0},
	}
	for _, test := range tests {
		got, err := ParseSignal(test.name)
		if got != test.want || (err == nil) != (test.want != 0) {
			t.Errorf("%q: %d, %v, want %d", test.name, got, err, test.want)
		}
	}
}

func TestAbbreviate(t *testing.T) {
	long := strings.Repeat("é", 60)
	tests := []struct{ name, in, want string }{
		{"short", `"web"`, `"web"`},
		{"60", long, long},
		{"61", long + "é", long[:59*2] + "…"},
		{"escape that would be cut in two", strings.Repeat("a", 57) + "\x1b[2J", strings.Repeat("a", 57) + "…"},
		{"white space", "{\n\t\"a\": 1\r\n}", `{ "a": 1 }`},
		{"control characters", "a\x00\x1b\x7f\u0085", `a\u0000\u001b\u007f\u0085`},
		{"right to left", "a\u202eb", `a\u202eb`},
		{"beyond 16 bits", "a\U000e0001", `a\U000e0001`},
		{"invalid UTF-8", "a\xff\xc3", `a\xff\xc3`},
	}
	for _, test := range tests {
		if got := abbreviate(test.in); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"name", "network", "mounts", "memoryMax", "memoryHigh"}
	tests := []struct{ name, want string }{
		{"netwrok", "network"},
		{"Network", "network"},
		{"mount", "mounts"},
		{"memorymax", "memoryMax"},
		{"memory_max", "memoryMax"},
		{"colour", ""},
		{"", ""},
		{"x", ""},
		{strings.Repeat("network", 1000), ""},
	}
	for _, test := range tests {
		if got := Nearest(test.name, names); got != test.want {
			t.Errorf("%.20q: %q, want %q", test.name, got, test.want)
		}
	}
	if got := Nearest("web", nil); got != "" {
		t.Errorf("nearest of none is %q", got)
	}
}

func TestQuery(t *testing.T) {
	content := []byte(`{"name":"web","network":{"ports":[{"host":80,"address":"::1"},{"host":81}]},"a":null,"b":false}`)
	tests := []struct {
		path, want string
		found      bool
	}{
		{"name", "web", true},
		{"network.ports.0.host", "80", true},
		{"network.ports[1].host", "81", true},
		{"network.ports[0]", `{"host":80,"address":"::1"}`, true},
		{"network.ports.#", "2", true},
		{"network.ports.#.host", "[80,81]", true},
		{`network.ports.#(host==81).host`, "81", true},
		{"[name,b]", `["web",false]`, true},
		{"a", "null", true},
		{"b", "false", true},
		{"network.ports[2].host", "", false},
		{"nothing", "", false},
		{"", "", false},
		{"[", "", false},
		{"name[", "", false},
	}
	for _, test := range tests {
		got, found := Query(content, test.path)
		if got != test.want || found != test.found {
			t.Errorf("%s: %q, %v, want %q, %v", test.path, got, found, test.want, test.found)
		}
	}
}
