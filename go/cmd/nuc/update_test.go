package main

import (
	"strings"
	"testing"
)

func TestParseLimits(t *testing.T) {
	tests := []struct {
		parse func(string) (int64, error)
		text  string
		want  int64
		err   string
	}{
		{parseSize, "512M", 512 << 20, ""},
		{parseSize, "1", 1, ""},
		{parseSize, "4K", 4096, ""},
		{parseSize, "2G", 2 << 30, ""},
		{parseSize, "3T", 3 << 40, ""},
		{parseSize, "none", 0, ""},
		{parseSize, "max", 0, ""},
		{parseSize, "", 0, "expected a size"},
		{parseSize, "M", 0, "expected a size"},
		{parseSize, "512MB", 0, "write 512M"},
		{parseSize, "512MiB", 0, "write 512M"},
		{parseSize, "512m", 0, "write 512M"},
		{parseSize, "512 M", 0, "write 512M"},
		{parseSize, "1.5G", 0, "expected a size"},
		{parseSize, "-1", 0, "expected a size"},
		{parseSize, "+1M", 0, "expected a size"},
		{parseSize, "1MM", 0, "expected a size"},
		{parseSize, "1KM", 0, "expected a size"},
		{parseSize, "0", 0, "none takes the limit away"},
		{parseSize, "0M", 0, "none takes the limit away"},
		{parseSize, "None", 0, "expected a size"},
		{parseSize, "8388608T", 0, "more than any memory"},
		{parseSize, "99999999999999999999", 0, "more than any memory"},
		{parseSize, "１M", 0, "expected a size"},
		{parsePercent, "150%", 150, ""},
		{parsePercent, "none", 0, ""},
		{parsePercent, "150", 0, "write 150%"},
		{parsePercent, "12.5%", 0, "whole percentage"},
		{parsePercent, "%", 0, "whole percentage"},
		{parsePercent, "0%", 0, "whole percentage"},
		{parsePercent, "-5%", 0, "whole percentage"},
		{parsePercent, "50%%", 0, "whole percentage"},
		{parsePercent, "none%", 0, "whole percentage"},
		{parseNumber, "4096", 4096, ""},
		{parseNumber, "max", 0, ""},
		{parseNumber, "0", 0, "from 1 on"},
		{parseNumber, "+1", 0, "from 1 on"},
		{parseNumber, "1k", 0, "from 1 on"},
		{parseNumber, "", 0, "from 1 on"},
		{parseNumber, "99999999999", 0, "from 1 on"},
	}
	for _, test := range tests {
		got, err := test.parse(test.text)
		switch {
		case test.err == "" && (err != nil || got != test.want):
			t.Errorf("%q is %d, %v, want %d", test.text, got, err, test.want)
		case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err) || strings.Contains(err.Error(), "\n")):
			t.Errorf("%q is %d, %v, want an error with %q", test.text, got, err, test.err)
		}
	}
}
