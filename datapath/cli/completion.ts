/**
 * `tunpath completion SHELL`: a script for a shell. It knows nothing of commands and options: at each Tab it asks
 * `tunpath __complete -- WORD...`, which answers with a line that says whether files may stand there, too (none, files,
 * directories), and a line for each completion: VALUE, or VALUE, a tab, and what it means.
 */
import type { Command } from 'commander';
import { complete } from './complete.ts';
import { ends } from './options.ts';
import { print } from './output.ts';

/** Readline cuts words at `:` and `=` and replaces only what follows, so what stands before is cut off of completions. */
const BASH = `# tunpath for bash: source <(tunpath completion bash), or to stay: tunpath completion bash > /etc/bash_completion.d/tunpath
_tunpath() {
  local line=\${COMP_LINE:0:COMP_POINT} words answer word cut='' value
  read -ra words <<<"$line"
  if [[ $line == *[[:blank:]] ]]; then words+=(''); fi
  word=\${words[-1]}
  mapfile -t answer < <("$1" __complete -- "\${words[@]:1}" 2>/dev/null)
  if [[ $word =~ [:=] ]]; then cut=\${word%"\${word##*[:=]}"}; fi
  COMPREPLY=()
  for value in "\${answer[@]:1}"; do
    value=\${value%%$'\\t'*}
    COMPREPLY+=("\${value#"$cut"}")
  done
  case \${answer[0]} in
    files) compopt -o default ;;
    directories) compopt -o dirnames ;;
  esac
  # The value is still to come, or more of a list.
  if [[ \${#COMPREPLY[@]} -eq 1 && \${COMPREPLY[0]} == *[=/,] ]]; then compopt -o nospace; fi
}
complete -F _tunpath tunpath
`;

const ZSH = `#compdef tunpath
# tunpath for zsh: source <(tunpath completion zsh) after compinit, or as a file _tunpath in a directory of $fpath
_tunpath() {
  local -a answer described
  local line value
  answer=("\${(@f)$("$words[1]" __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  for line in "\${(@)answer[2,-1]}"; do
    value=\${\${line%%$'\\t'*}//:/\\\\:}
    if [[ $line == *$'\\t'* ]]; then value+=":\${line#*$'\\t'}"; fi
    described+=("$value")
  done
  (( $#described )) && _describe -t values 'tunpath' described
  case $answer[1] in
    files) compset -P '--*='; _files ;;
    directories) compset -P '--*='; _files -/ ;;
  esac
}
if [[ $funcstack[1] == _tunpath ]]; then _tunpath "$@"; else compdef _tunpath tunpath; fi
`;

const FISH = `# tunpath for fish: tunpath completion fish > ~/.config/fish/completions/tunpath.fish
function __tunpath_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l answer ($words[1] __complete -- $words[2..-1] 2>/dev/null)
    set -q answer[2]; and printf '%s\\n' $answer[2..-1]
    switch "$answer[1]"
        case files
            __fish_complete_path (commandline -ct)
        case directories
            __fish_complete_directories (commandline -ct)
    end
end
complete -c tunpath -e
complete -c tunpath -f -a '(__tunpath_complete)'
`;

const SCRIPTS: Readonly<Record<string, string>> = { bash: BASH, zsh: ZSH, fish: FISH };

export async function completion(shell: string): Promise<number> {
  await print(SCRIPTS[shell]);
  return 0;
}

/** The end of what scripts ask. It is no command for people. */
export function addComplete(program: Command): void {
  program
    .command('__complete', { hidden: true })
    .argument('[words...]')
    .action(
      ends(async (words: string[]) => {
        const { files, completions } = await complete(program, words);
        const lines = completions.map(({ value, description }) =>
          description === undefined || description === '' ? value : `${value}\t${description.replaceAll(/\s+/g, ' ')}`,
        );
        await print(`${[files, ...lines].join('\n')}\n`);
        return 0;
      }),
    );
}
