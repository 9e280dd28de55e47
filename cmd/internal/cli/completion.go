package cli

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// completion writes a shell's completion script from the model of the flags.
func completion(shell, name string, model *kong.Application) (string, error) {
	switch shell {
	case "bash":
		return bashCompletion(name, model), nil
	case "zsh":
		return zshCompletion(name, model), nil
	case "fish":
		return fishCompletion(name, model), nil
	}
	return "", fmt.Errorf("there are completions for bash, zsh and fish, not for %q", shell)
}

func bashCompletion(name string, model *kong.Application) string {
	var words []string
	var cases strings.Builder
	for _, f := range allFlags(model) {
		words = append(words, "--"+f.Name)
		if f.Enum != "" {
			fmt.Fprintf(&cases, "    --%s) COMPREPLY=($(compgen -W '%s' -- \"$cur\")); return ;;\n", f.Name, strings.Join(f.EnumSlice(), " "))
		}
	}
	others := "-f"
	if names := commands(model); len(names) > 0 {
		others = "-W '" + strings.Join(names, " ") + "'"
	}
	fn := "_" + strings.ReplaceAll(name, "-", "_")
	if name == "bk" {
		return fmt.Sprintf(bashFamily, strings.Join(words, " "))
	}
	return fmt.Sprintf(`%s() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
  case $prev in
%s  esac
  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W '%s' -- "$cur"))
  else
    COMPREPLY=($(compgen %s -- "$cur"))
  fi
}
complete -o filenames -F %s %s
`, fn, cases.String(), strings.Join(words, " "), others, fn, name)
}

// bashFamily completes "bk NAME ARGS": the names are those of the programs in
// PATH, what follows is completed as by the program itself.
const bashFamily = `_bk() {
  local cur=${COMP_WORDS[COMP_CWORD]} name=${COMP_WORDS[1]}
  if ((COMP_CWORD > 1)) && [[ $name != help ]]; then
    type -P "bk-$name" >/dev/null || return
    declare -F "_bk_$name" >/dev/null || eval "$("bk-$name" --completion bash)"
    "_bk_$name"
  elif [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W '%s' -- "$cur"))
  else
    COMPREPLY=($(compgen -c -- "bk-$cur"))
    COMPREPLY=("${COMPREPLY[@]#bk-}")
  fi
}
complete -o filenames -F _bk bk
`

// zshFamily comes before the completion of bk itself. Programs whose completion
// is not among those that zsh has loaded are asked for it.
const zshFamily = `if (( CURRENT > 2 )) && [[ $words[2] != (help|-*) ]]; then
  (( $+commands[bk-$words[2]] )) || return
  shift words
  (( CURRENT-- ))
  words[1]=bk-$words[1]
  if (( $+_comps[$words[1]] )); then
    _normal
  else
    eval "$($words[1] --completion zsh)"
  fi
  return
fi
local -a names=(${${(Mk)commands:#bk-*}#bk-})
`

func zshCompletion(name string, model *kong.Application) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#compdef %s\n", name)
	if name == "bk" {
		b.WriteString(zshFamily)
	}
	b.WriteString("_arguments -s \\\n")
	for _, f := range allFlags(model) {
		help := strings.NewReplacer("'", "", "[", "(", "]", ")", ":", " ").Replace(f.Help)
		value := ""
		switch {
		case f.Enum != "":
			value = "=:value:(" + strings.Join(f.EnumSlice(), " ") + ")"
		case !f.IsBool() && !f.IsCounter():
			value = "=:" + strings.ToLower(f.Name) + ":_files"
		}
		fmt.Fprintf(&b, "  '*--%s%s[%s]%s' \\\n", f.Name, strings.TrimSuffix(value[:min(1, len(value))], ":"), help, strings.TrimPrefix(value, "="))
	}
	if name == "bk" {
		b.WriteString("  \"*:program:($names)\"\n")
		return b.String()
	}
	if names := commands(model); len(names) > 0 {
		fmt.Fprintf(&b, "  '1:command:(%s)' \\\n", strings.Join(names, " "))
	}
	b.WriteString("  '*:file:_files'\n")
	return b.String()
}

// fishFamily completes "bk NAME ARGS" as the line "bk-NAME ARGS". Programs whose
// completion is not installed are asked for it.
const fishFamily = `function __bk_name
  set -l words (commandline -opc)
  test (count $words) -ge 2; and not string match -q -- '-*' $words[2]; and test $words[2] != help; and echo bk-$words[2]
end
function __bk_names
  complete -C bk- | string replace -rf '^bk-(\S+).*' '$1'
end
function __bk_as_program
  set -l program (__bk_name)
  command -q $program; or return
  complete -C "$program --" | string match -q -- '--*'; or $program --completion fish | source
  complete -C (commandline -pc | string collect | string replace -r '^\s*(\S*/)?bk\s+\S+' $program)
end
complete -c bk -f -n 'not __bk_name' -a '(__bk_names)'
complete -c bk -f -n __bk_name -a '(__bk_as_program)'
`

func fishCompletion(name string, model *kong.Application) string {
	var b strings.Builder
	when := ""
	if name == "bk" {
		b.WriteString(fishFamily)
		when = " -n 'not __bk_name'"
	}
	for _, command := range model.Children {
		fmt.Fprintf(&b, "complete -c %s -f -n __fish_use_subcommand -a %s -d '%s'\n", name, command.Name, strings.ReplaceAll(command.Help, "'", `\'`))
	}
	for _, f := range allFlags(model) {
		fmt.Fprintf(&b, "complete -c %s%s -l %s", name, when, f.Name)
		if f.Short != 0 {
			fmt.Fprintf(&b, " -s %c", f.Short)
		}
		if f.Enum != "" {
			fmt.Fprintf(&b, " -x -a '%s'", strings.Join(f.EnumSlice(), " "))
		} else if !f.IsBool() && !f.IsCounter() {
			b.WriteString(" -r")
		}
		fmt.Fprintf(&b, " -d '%s'\n", strings.ReplaceAll(f.Help, "'", `\'`))
	}
	return b.String()
}
