# Login shells have the image's variables, and what these files add.
for file in /etc/profile.d/*.sh; do
  [ ! -r "$file" ] || . "$file"
done
unset file
