package descriptor

import (
	"strings"

	"github.com/tidwall/gjson"
)

// Query looks up a value in a descriptor's JSON by a gjson path
// (network.ports.0.host) or by a path as problems name it
// (network.ports[0].host). A string comes without its quotes, anything else as
// JSON; false if nothing is there.
func Query(data []byte, path string) (string, bool) {
	result := gjson.GetBytes(data, dotted(path))
	if !result.Exists() {
		return "", false
	}
	if result.Type == gjson.String {
		return result.Str, true
	}
	return result.Raw, true
}

// dotted turns ports[0] into ports.0 and leaves gjson's own brackets, which
// stand at a component's beginning or hold more than digits.
func dotted(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); {
		if path[i] == '[' && i > 0 && path[i-1] != '.' && path[i-1] != '|' {
			n := len(path[i+1:]) - len(strings.TrimLeft(path[i+1:], "0123456789"))
			if n > 0 && strings.HasPrefix(path[i+1+n:], "]") {
				b.WriteString("." + path[i+1:i+1+n])
				i += n + 2
				continue
			}
		}
		b.WriteByte(path[i])
		i++
	}
	return b.String()
}
