#!/bin/sh
# post_comment.sh OWNER/NAME NUMBER FILE: writes the comment of a pull request, in place of its former version where there is one.
set -eu
repository=$1 number=$2 file=$3
old=$(gh api --paginate "repos/$repository/issues/$number/comments" --jq '.[] | select(.body | startswith("<!-- causalroute report -->")) | .id' | head -n 1)
if [ -n "$old" ]; then
  gh api --silent -X PATCH "repos/$repository/issues/comments/$old" -F "body=@$file"
else
  gh api --silent -X POST "repos/$repository/issues/$number/comments" -F "body=@$file"
fi
