package cli

import "testing"

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                 "",
		"a b/ä":            "a b/ä",
		"a\nb":             `a\x0ab`,
		"\x1b[31m":         `\x1b[31m`,
		"\xff":             `\xff`,
		`a\b`:              `a\\b`,
		"\u202egpj":        `\xe2\x80\xaegpj`,
		"\ufffd":           "\ufffd",
		"\u009bK\u00a0end": `\xc2\x9bK\xc2\xa0end`,
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
