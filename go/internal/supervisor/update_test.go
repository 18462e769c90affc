package supervisor

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nix-user-containers/nuc/go/internal/descriptor"
)

func TestRestart(t *testing.T) {
	read := func(members string) *descriptor.Descriptor {
		d, err := descriptor.Read([]byte(`{"version":1,"name":"web","system":{"init":"/sbin/init"}` + members + `}`))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	old := read("")
	tests := []struct {
		members string
		want    []string
	}{
		{``, nil},
		{`,"links":[{"listen":5432,"to":"db"}],"dependsOn":["db"]`, nil},
		{`,"network":{"ports":[{"host":80,"container":80,"socketActivation":true}],"idleStopSeconds":60}`, nil},
		{`,"network":{"ports":[{"host":80,"container":80,"handOver":true}]}`, []string{"network.ports[].handOver"}},
		{`,"network":{"outbound":false}`, []string{"network.outbound"}},
		{`,"network":{"mode":"host"}`, []string{"network.mode", "network.outbound"}},
		{`,"network":{"hostLoopback":true,"allow":["192.0.2.1"],"mtu":1500}`, []string{"network.hostLoopback", "network.allow", "network.mtu"}},
		{`,"network":{"dns":["9.9.9.9"]}`, nil},
		{`,"security":{"seccomp":"off"}`, []string{"security.seccomp"}},
		{`,"credentials":[{"name":"a","file":"/a"}]`, []string{"credentials"}},
	}
	for _, test := range tests {
		changed := read(test.members)
		if diff := cmp.Diff(test.want, Restart(old, changed)); diff != "" {
			t.Errorf("to %s: want (-) got (+):\n%s", test.members, diff)
		}
		if diff := cmp.Diff(test.want, Restart(changed, old)); diff != "" {
			t.Errorf("from %s: want (-) got (+):\n%s", test.members, diff)
		}
	}

	mail := read(`,"network":{"hosts":{"mail":"192.0.2.25"},"allow":["192.0.2.1"]}`)
	news := read(`,"network":{"hosts":{"news":"192.0.2.25"},"allow":["192.0.2.2"]}`)
	if diff := cmp.Diff([]string{"network.allow", "network.hosts"}, Restart(old, mail)); diff != "" {
		t.Errorf("first names: want (-) got (+):\n%s", diff)
	}
	if keys := Restart(mail, news); keys != nil {
		t.Errorf("other names and limits: %q, want none", keys)
	}

	for _, other := range []string{`{"name":"b","command":["a"]}`, `{"name":"a","command":["a","b"]}`, `{"name":"a","command":["a"],"optional":true}`, `{"name":"a","environment":"A"}`} {
		a, b := read(`,"credentials":[{"name":"a","command":["a"]}]`), read(`,"credentials":[`+other+`]`)
		if keys := RestartListening(a, b); !cmp.Equal(keys, []string{"credentials"}) || Restart(a, a) != nil {
			t.Errorf("%s: %q", other, keys)
		}
	}

	system, changed := read(""), read(`,"network":{"hosts":{"mail":"192.0.2.25"}}`)
	system.System.Toplevel, changed.System.Toplevel = "/nix/store/a", "/nix/store/b"
	if keys := Restart(system, changed); keys != nil {
		t.Errorf("names of a NixOS system need a restart: %q", keys)
	}
}
