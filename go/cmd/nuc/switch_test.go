package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseUnits(t *testing.T) {
	got := parseUnits("Id=a.service\nActiveState=active\nInvocationID=1\n\nActiveState=failed\nInvocationID=\nId=b.mount\n\n\nActiveState=active\n")
	want := map[string]unitState{"a.service": {"active", "1"}, "b.mount": {"failed", ""}}
	if len(got) != len(want) || got["a.service"] != want["a.service"] || got["b.mount"] != want["b.mount"] {
		t.Errorf("%v, want %v", got, want)
	}
	if got := parseUnits(""); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func TestBecameOf(t *testing.T) {
	before := map[string]unitState{
		"same": {"active", "1"}, "restarted": {"active", "1"}, "stopped": {"active", "1"}, "removed": {"active", "1"},
		"failing": {"active", "1"}, "still failed": {"failed", "1"}, "failed again": {"failed", "1"}, "was off": {"inactive", ""},
		"stays off": {"inactive", ""}, "removed while off": {"inactive", ""}, "reloading": {"active", "1"}, "coming": {"activating", "1"},
		"removed while coming": {"activating", "1"},
	}
	after := map[string]unitState{
		"same": {"active", "1"}, "restarted": {"active", "2"}, "stopped": {"inactive", "1"},
		"failing": {"failed", "1"}, "still failed": {"failed", "1"}, "failed again": {"failed", "2"}, "was off": {"active", "1"},
		"stays off": {"inactive", ""}, "new": {"activating", "1"}, "new and failed": {"failed", "1"}, "new and off": {"inactive", ""},
		"reloading": {"reloading", "1"}, "coming": {"active", "1"},
	}
	var got []string
	for _, list := range becameOf(before, after) {
		got = append(got, list.what+": "+strings.Join(list.units, ", "))
	}
	want := []string{
		"started: new, was off", "restarted: restarted", "stopped: removed, removed while coming, stopped",
		"failed: failed again, failing, new and failed",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}

// system makes as much of a NixOS system as units are found by.
func system(t *testing.T, links map[string]string) string {
	t.Helper()
	top := t.TempDir()
	for name, target := range links {
		path := filepath.Join(top, "etc/systemd/system", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	return top
}

func TestUnitsThatDiffer(t *testing.T) {
	a := system(t, map[string]string{
		"nginx.service": "/s/1-unit/nginx.service", "redis.service": "/s/1-unit/redis.service", "same.service": "/s/same",
		"sshd.service.d/overrides.conf": "/s/1-over", "multi-user.target.wants/redis.service": "../redis.service",
		"multi-user.target.wants/same.service": "../same.service",
	})
	b := system(t, map[string]string{
		"nginx.service": "/s/2-unit/nginx.service", "new.service": "/s/new", "same.service": "/s/same",
		"sshd.service.d/overrides.conf": "/s/2-over", "multi-user.target.wants/new.service": "../new.service",
		"multi-user.target.requires/nginx.service": "../nginx.service",
	})
	var got []string
	for _, one := range withoutWants(compareMaps(units(a), units(b))) {
		got = append(got, fmt.Sprintf("%s %t %t", one.Name, one.From != "", one.To != ""))
	}
	slices.Sort(got)
	want := []string{
		"multi-user.target.requires/nginx.service false true", // nginx itself was there
		"multi-user.target.wants/same.service true false",
		"new.service false true", "nginx.service true true", "redis.service true false", "sshd.service.d/overrides.conf true true",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
}

// TestPackagesThatDiffer: why Nix can't compare two systems is said in its words.
func TestPackagesThatDiffer(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	script := "#!/bin/sh\n[ \"$3 $4 $5 $6\" = 'store diff-closures /a /b' ] || { echo \"error: $*\" >&2; echo more >&2; exit 1; }\nprintf 'nginx: 1.2 → 1.3\\nunit-a.service: ε → ∅\\n\\n'\n"
	if err := os.WriteFile(bin+"/nix", []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := packages("/a", "/b"); !slices.Equal(got, []string{"nginx: 1.2 → 1.3"}) {
		t.Errorf("%q", got)
	}
	if got := packages("/a", "/c"); len(got) != 1 || !strings.HasPrefix(got[0], "not compared: error: --extra") || strings.Contains(got[0], "more") {
		t.Errorf("%q", got)
	}
}
