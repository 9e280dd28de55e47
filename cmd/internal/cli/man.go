package cli

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// manPage writes the program's manual page in man(7) macros from the same
// model that --help prints, so that the two cannot disagree.
func manPage(name, summary string, model *kong.Application) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1 \"\" \"bk %s\" \"bk manual\"\n", strings.ToUpper(name), roff(Version))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(name), roff(strings.TrimSuffix(lowerFirst(summary), ".")))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n[\\fIflags\\fR]", roff(name))
	for _, arg := range model.Positional {
		fmt.Fprintf(&b, " \\fI%s\\fR", roff(arg.Summary()))
	}
	if len(model.Children) > 0 {
		b.WriteString(" \\fIcommand\\fR ...")
	}
	b.WriteString("\n.SH DESCRIPTION\n")
	for i, para := range strings.Split(model.Help, "\n\n") {
		if i > 0 {
			b.WriteString(".PP\n")
		}
		if strings.HasPrefix(para, "  ") || strings.HasPrefix(para, "\t") {
			fmt.Fprintf(&b, ".nf\n%s\n.fi\n", roff(para))
		} else {
			fmt.Fprintf(&b, "%s\n", roff(para))
		}
	}
	if len(model.Positional) > 0 {
		b.WriteString(".SH ARGUMENTS\n")
		manArguments(&b, model.Positional)
	}
	if len(model.Children) > 0 {
		b.WriteString(".SH COMMANDS\n")
		for _, command := range model.Children {
			fmt.Fprintf(&b, ".SS %s\n%s\n", roff(command.Summary()), roff(command.Help))
			manArguments(&b, command.Positional)
			manFlags(&b, command.Flags)
		}
	}
	b.WriteString(".SH FLAGS\n")
	manFlags(&b, flags(model))
	b.WriteString(".SH EXIT STATUS\n")
	for _, row := range exitTexts {
		fmt.Fprintf(&b, ".TP\n%d\n%s\n", row.code, roff(row.text))
	}
	b.WriteString(".SH SEE ALSO\n.BR bk (1)\n")
	return b.String()
}

func manArguments(b *strings.Builder, list []*kong.Positional) {
	for _, arg := range list {
		fmt.Fprintf(b, ".TP\n\\fI%s\\fR\n%s\n", roff(arg.Summary()), roff(arg.Help))
	}
}

func manFlags(b *strings.Builder, list []*kong.Flag) {
	for _, f := range list {
		b.WriteString(".TP\n")
		if f.Short != 0 {
			fmt.Fprintf(b, "\\fB\\-%c\\fR, ", f.Short)
		}
		fmt.Fprintf(b, "\\fB\\-\\-%s\\fR", roff(f.Name))
		if !f.IsBool() && !f.IsCounter() {
			fmt.Fprintf(b, "=\\fI%s\\fR", roff(f.FormatPlaceHolder()))
		}
		fmt.Fprintf(b, "\n%s", roff(f.Help))
		if len(f.Envs) > 0 {
			fmt.Fprintf(b, " Environment: %s.", roff(strings.Join(f.Envs, ", ")))
		}
		b.WriteString("\n")
	}
}

var exitTexts = []struct {
	code int
	text string
}{
	{ExitDone, "done"},
	{ExitFailed, "failed; nothing more was committed"},
	{ExitUsage, "wrong usage"},
	{ExitLossy, "done, but some input could not be read or some fidelity was lost; each is named on standard error"},
	{ExitStream, "the input stream is cut off or invalid"},
	{ExitNoRepository, "there is no repository at that place"},
	{ExitNoKey, "no key fits: wrong passphrase"},
	{ExitInterrupted, "interrupted; what was committed stays"},
}

// flags returns the visible flags in the order of the model, without those of
// single commands.
func flags(model *kong.Application) []*kong.Flag {
	var out []*kong.Flag
	for _, group := range model.AllFlags(true) {
		out = append(out, group...)
	}
	return out
}

// allFlags returns those of commands too, each name once.
func allFlags(model *kong.Application) []*kong.Flag {
	out := flags(model)
	seen := make(map[string]bool)
	for _, f := range out {
		seen[f.Name] = true
	}
	for _, command := range model.Children {
		for _, f := range command.Flags {
			if !seen[f.Name] && !f.Hidden {
				seen[f.Name] = true
				out = append(out, f)
			}
		}
	}
	return out
}

// commands returns the names of the commands.
func commands(model *kong.Application) []string {
	var names []string
	for _, command := range model.Children {
		if !command.Hidden {
			names = append(names, command.Name)
		}
	}
	return names
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

// roff escapes what troff would take for itself.
func roff(s string) string {
	s = strings.ReplaceAll(s, `\`, `\e`)
	s = strings.ReplaceAll(s, "-", `\-`)
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
