package vm

import (
	"encoding/json"
	"fmt"
	"testing"
)

// link is what `nuc links --json` says of one.
type link struct {
	Name, State, Unit string
	Pid               int
	Listen            []string
	Declared          bool
}

func (s *session) links(t testing.TB) map[string]link {
	t.Helper()
	var all []link
	text := s.must(t, "nuc links --json")
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	found := map[string]link{}
	for _, l := range all {
		found[l.Name] = l
	}
	return found
}

// TestLink has links as units of the user's systemd.
func TestLink(t *testing.T) {
	m := up(t)
	ana := m.equip(t, "ana")
	ana.up(t, web("web", 8080))
	ana.up(t, small("app").with("links", []any{map[string]any{"listen": 80, "to": "web"}}))

	const name = "host-8090-web-80"
	const unit = "nuc-link-" + name + ".service"
	page := "curl -fsS --max-time 20 http://localhost:8090/ | grep -q nginx"
	ana.must(t, "nuc link - 8090 web 80 && "+page)
	l := ana.links(t)[name]
	if l.Unit != unit || l.State != "listening" {
		t.Errorf("%+v", l)
	}
	if got, want := ana.must(t, "systemctl --user show --property=ActiveState,MainPID,Description "+unit),
		fmt.Sprintf("MainPID=%d\nDescription=nuc link localhost:8090 → web:80\nActiveState=active", l.Pid); got != want {
		t.Errorf("the unit:\n%s\nwant:\n%s", got, want)
	}
	ana.must(t, fmt.Sprintf("kill -9 %d", l.Pid))
	ana.eventually(t, patience, page)
	if again := ana.links(t)[name]; again.Pid == l.Pid || again.State != "listening" {
		t.Errorf("killed, process %d: %+v", l.Pid, again)
	}

	// One that can't be made leaves no unit.
	if r := ana.run(t, "nuc link - 8080 app 80"); r.code != 1 {
		t.Errorf("the port is taken: %s", r)
	} else {
		one(t, r.stderr)
	}
	ana.must(t, "! systemctl --user --quiet is-failed 'nuc-link-*' && test $(systemctl --user list-units --plain --no-legend 'nuc-link-*' | wc -l) = 2")

	// A declared one is a unit as well, and goes with its container.
	const declared = "app-80-web-80"
	if l := ana.links(t)[declared]; l.Unit != "nuc-link-"+declared+".service" || !l.Declared || l.State != "listening" {
		t.Errorf("%+v", l)
	}
	ana.must(t, "nuc exec app bash -c 'exec 3<>/dev/tcp/web/80 && printf \"GET / HTTP/1.0\\r\\n\\r\\n\" >&3 && grep -q nginx <&3'")
	ana.must(t, fmt.Sprintf("kill -9 %d", ana.links(t)[declared].Pid))
	ana.eventually(t, patience, "nuc exec app bash -c 'exec 3<>/dev/tcp/127.0.0.1/80'")
	ana.must(t, "nuc stop app && ! systemctl --user --quiet is-active nuc-link-"+declared)

	// systemctl ends a link as unlink does.
	ana.must(t, "systemctl --user stop "+unit)
	if all := ana.links(t); len(all) != 0 {
		t.Errorf("stopped: %+v", all)
	}
	ana.must(t, "nuc link - 8090 web 80 && nuc unlink - 8090 && ! systemctl --user --quiet is-active "+unit)
	if r := ana.run(t, page); r.code == 0 {
		t.Errorf("unlinked: %s", r)
	}
}
