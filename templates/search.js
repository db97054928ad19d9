window.atlasEntries({{ entries }});
