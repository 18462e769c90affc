package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/nix-user-containers/nuc/go/internal/link"
)

func TestLinkWords(t *testing.T) {
	tests := []struct{ ends, unix, want, err string }{
		{"- 1001 db 5432", "", "- 1001 db 5432", ""},
		{"- /run/s db 5432", "", "- /run/s db 5432", ""},
		{"- db 5432", "/run/s", "- /run/s db 5432", ""},
		{"web 80 db", "/run/s", "web 80 db /run/s", ""},
		{"- 8000-8001 80", "/run/s", "", "at which end?"},
		{"- web db", "/run/s", "", "at which end?"},
		{"web db", "/run/s /run/t", "web /run/s db /run/t", ""},
		{"web db", "/run/s", "", "2 words"},
		{"web 80 db 80", "/run/s", "", "4 words"},
	}
	for _, test := range tests {
		l := &linkCommand{Unix: strings.Fields(test.unix)}
		for i, word := range strings.Fields(test.ends) {
			*[]*string{&l.Client, &l.ClientPort, &l.Host, &l.HostPort}[i] = word
		}
		got, err := l.words()
		if test.err != "" {
			var e exitStatus
			if !errors.As(err, &e) || e.status != statusUsage || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%s, --unix %s: %q, %v, want %q", test.ends, test.unix, got, err, test.err)
			}
			continue
		}
		if err != nil || !slices.Equal(got, strings.Fields(test.want)) {
			t.Errorf("%s, --unix %s: %q, %v, want %q", test.ends, test.unix, got, err, test.want)
		}
	}
}

func TestReadPorts(t *testing.T) {
	tests := []struct {
		word     string
		first, n int
		err      string
	}{
		{"80", 80, 1, ""},
		{"8000-8010", 8000, 11, ""},
		{"65535", 65535, 1, ""},
		{"80-80", 80, 1, ""},
		{"1-65535", 1, 65535, ""},
		{"8010-8000", 0, 0, "write 8000-8010"},
		{"0", 0, 0, "1 to 65535"},
		{"65536", 0, 0, "1 to 65535"},
		{"080", 0, 0, "1 to 65535"},
		{"+80", 0, 0, "1 to 65535"},
		{"-80", 0, 0, "1 to 65535"},
		{"80-", 0, 0, "1 to 65535"},
		{"80-90-100", 0, 0, "1 to 65535"},
		{"http", 0, 0, "1 to 65535"},
		{"", 0, 0, "1 to 65535"},
	}
	for _, test := range tests {
		first, n, err := readPorts(test.word)
		if first != test.first && test.err == "" || n != test.n || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%q: %d, %d, %v", test.word, first, n, err)
		}
	}
}

func TestLinkAddresses(t *testing.T) {
	tests := []struct {
		command linkCommand
		path    string
		want    string
		err     string
	}{
		{linkCommand{}, "", "127.0.0.1 ::1", ""},
		{linkCommand{IPv4: true}, "", "127.0.0.1", ""},
		{linkCommand{IPv6: true}, "", "::1", ""},
		{linkCommand{Address: []string{"0.0.0.0", "::"}}, "", "0.0.0.0 ::", ""},
		{linkCommand{Address: []string{"0::1"}}, "", "::1", ""},
		{linkCommand{Address: []string{"::ffff:127.0.0.1"}}, "", "", "::ffff"},
		{linkCommand{Address: []string{"fe80::1%lo"}}, "", "", "fe80::1%lo"},
		{linkCommand{Address: []string{"localhost"}}, "", "", "localhost"},
		{linkCommand{Address: []string{"::1"}, IPv4: true}, "", "", "other family"},
		{linkCommand{IPv4: true, IPv6: true}, "", "", "leave both out"},
		{linkCommand{}, "/run/s", "", ""},
		{linkCommand{IPv4: true}, "/run/s", "", "Unix socket"},
	}
	for _, test := range tests {
		s := &link.Spec{Client: link.End{Path: test.path}}
		err := test.command.addresses(s)
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) || err == nil && !slices.Equal(s.Addresses, strings.Fields(test.want)) {
			t.Errorf("%+v: %q, %v", test.command, s.Addresses, err)
		}
	}
}
