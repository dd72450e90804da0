# shellcheck shell=bash
# shellcheck source-path=SCRIPTDIR
LIB=$(dirname "${BASH_SOURCE[0]}")
source "$LIB/common.sh"
source "$LIB/builder.sh"
source "$LIB/clean.sh"
source "$LIB/configuration.sh"
source "$LIB/kind.sh"
source "$LIB/load.sh"
source "$LIB/packages.sh"
source "$LIB/pki.sh"
source "$LIB/process.sh"
source "$LIB/provider.sh"
source "$LIB/source.sh"
