package main

import (
	"strings"
	"testing"
)

// FuzzWords reads words of the command line.
func FuzzWords(f *testing.F) {
	for _, seed := range []string{"80", "8000-8010", "0", "65536", "10-1", "512M", "1024", "none", "16777216T", "50%", "%", "30d", "m", "", "+1", "1 kib", "0x10", "٣"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, word string) {
		if first, n, err := readPorts(word); err == nil && (first < 1 || n < 1 || first+n-1 > 65535) {
			t.Errorf("%q is %d ports from %d on", word, n, first)
		}
		for name, parse := range map[string]func(string) (int64, error){"size": parseSize, "percentage": parsePercent, "number": parseNumber} {
			n, err := parse(word)
			if err == nil && (n < 0 || n == 0 && !unlimited(word)) {
				t.Errorf("%q is the %s %d", word, name, n)
			}
			if err != nil && n != 0 {
				t.Errorf("%q: %d, and %v", word, n, err)
			}
		}
		if age, err := parseAge(word); err == nil && age < 0 {
			t.Errorf("%q is the age %s", word, age)
		}
	})
}

// FuzzParseUnits reads what a container's systemctl prints.
func FuzzParseUnits(f *testing.F) {
	f.Add("Id=a.service\nActiveState=active\nInvocationID=1\n\nId=b.service\nActiveState=failed\n")
	f.Add("Id=\n\n\nId=x\x00=\n=")
	f.Fuzz(func(t *testing.T, out string) {
		for id, u := range parseUnits(out) {
			if id == "" || strings.ContainsAny(id+u.active+u.invocation, "\n") || !strings.Contains(out, "Id="+id) {
				t.Errorf("%q: unit %q is %+q", out, id, u)
			}
		}
	})
}
